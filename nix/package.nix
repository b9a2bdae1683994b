{
  lib,
  stdenv,
  python3,
  installShellFiles,
  # Whether the hot path is compiled to machine code. Not by default: mypyc of nixpkgs's own mypy was not tried.
  compiled ? false,
  # Whether the build runs all of its tests, which takes minutes: `checks.suite` does.
  wholeSuite ? false,
}:

let
  inherit (lib.importTOML ../pyproject.toml) project;
in
python3.pkgs.buildPythonApplication (finalAttrs: {
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
  build-system =
    with python3.pkgs;
    [
      hatchling
      click
    ]
    ++ lib.optionals compiled [
      mypy
      setuptools
    ];
  env.AIMUX_COMPILE = if compiled then "1" else "0";

  dependencies = with python3.pkgs; [
    aiohappyeyeballs
    aiohttp
    alembic
    asyncpg
    brotli
    click
    cryptography
    genai-prices
    jinja2
    markupsafe
    greenlet
    multidict
    orjson
    pluggy
    prometheus-client
    pydantic
    pyjwt
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

  # A user's build is not the place to find out how a machine under load behaves: it runs what is quick and has
  # neither processes nor clocks in it. The rest is `checks.suite`.
  nativeCheckInputs =
    with python3.pkgs;
    [
      hypothesis
      pytest-asyncio
      pytest-timeout
      pytestCheckHook
    ]
    ++ lib.optionals wholeSuite [
      anthropic
      blockbuster
      httpx
      jsonschema
      openai
    ];
  pythonImportsCheck = [
    "aimux.cli.main"
    "aimux.app"
    "aimux.testing"
    "aimux_chatgpt"
    "aimux_claude"
    "aimux_compat"
    "aimux_compatible"
  ];
  preCheck = ''
    $out/bin/aimux check-config --without-secrets --config config.example.yaml
  '';
  # Warnings are errors where aimux is developed; here they would only say that a dependency moved ahead of it.
  # Hypothesis has a profile for builds: the same examples each time, and no deadline that a busy machine misses.
  pytestFlags = [
    "-Wdefault"
    "--hypothesis-profile=ci"
  ];
  enabledTestPaths = lib.optionals (!wholeSuite) [
    "tests/http"
    "tests/plugin"
    "tests/providers"
    "tests/relay"
  ];
  disabledTestMarks = [
    "browser"
    "clients"
    "network"
  ]
  ++ lib.optional (!wholeSuite) "slow";
  # These check the repository (flake, manifests, sdist), which a build does not see, or want a browser; and not every
  # nixpkgs has schemathesis.
  disabledTestPaths = [
    "tests/control/dashboard"
    "tests/control/test_openapi.py"
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
      python3.withPackages (ps: [ (ps.toPythonModule finalAttrs.finalPackage) ] ++ select ps)
      // {
        inherit (finalAttrs.finalPackage) meta version;
      };
  };

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    mainProgram = "aimux";
    platforms = lib.platforms.unix;
  };
})
