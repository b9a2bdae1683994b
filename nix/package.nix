{
  lib,
  stdenv,
  python3,
  installShellFiles,
}:

let
  inherit (lib.importTOML ../pyproject.toml) project;

  aimux = python3.pkgs.buildPythonApplication {
    pname = project.name;
    inherit (project) version;
    pyproject = true;

    # What the sdist has: an edit to the flake or to deploy/ does not rebuild the package.
    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../aimux
        ../providers
        ../tests
        ../docs
        ../config.example.yaml
        ../pyproject.toml
        ../hatch_build.py
        ../README.md
        ../CHANGELOG.md
        ../LICENSE
      ];
    };

    # click makes the manual page that the wheel brings along.
    build-system = with python3.pkgs; [
      hatchling
      click
    ];

    dependencies = with python3.pkgs; [
      aiohappyeyeballs
      aiohttp
      aiosqlite
      alembic
      asyncpg
      brotli
      click
      cryptography
      genai-prices
      greenlet
      multidict
      pluggy
      prometheus-client
      pydantic
      pyyaml
      rich
      sqlalchemy
      tomlkit
      tzdata
      uvloop
      websockets
      yarl
      zstandard
    ];

    nativeBuildInputs = [ installShellFiles ];

    postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      for shell in bash zsh fish; do
        $out/bin/aimux completion $shell >aimux.$shell
      done
      installShellCompletion --cmd aimux aimux.{bash,zsh,fish}
    '';

    nativeCheckInputs = with python3.pkgs; [
      anthropic
      httpx
      hypothesis
      jsonschema
      openai
      pytest-asyncio
      pytestCheckHook
    ];
    pythonImportsCheck = [ "aimux.cli.main" ];
    # Warnings are errors where aimux is developed; here they would only say that a dependency moved ahead of it.
    pytestFlags = [ "-Wdefault" ];
    disabledTestMarks = [
      "browser"
      "clients"
      "network"
      "slow"
    ];
    # These check the repository (flake, manifests, sdist), which a build does not see; and not every nixpkgs has
    # schemathesis.
    disabledTestPaths = [
      "tests/admin/test_openapi.py"
      "tests/deploy"
      "tests/nix"
      "tests/packaging"
      "tests/test_bench.py"
    ];
    __darwinAllowLocalNetworking = true;

    passthru = {
      # aimux.withPlugins (ps: [ ps.some-provider ]): the same program with further providers beside the built-in ones.
      withPlugins =
        select:
        python3.withPackages (ps: [ (ps.toPythonModule aimux) ] ++ select ps)
        // {
          inherit (aimux) meta version;
        };
    };

    meta = {
      inherit (project) description;
      license = lib.licenses.mit;
      mainProgram = "aimux";
      platforms = lib.platforms.unix;
    };
  };
in
aimux
