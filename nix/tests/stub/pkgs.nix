# As much of nixpkgs' packages as our files use. Builders are the machine's own programs (host.nix names them; the
# tests write it), so that `nix run` really runs: the store must not be sandboxed.
{
  system,
  lib ? import ./lib.nix,
}:
let
  host = if builtins.pathExists ./host.nix then import ./host.nix else { };
  bash = host.bash or "/bin/sh";
  python = host.python or "/usr/bin/python3";

  build =
    name: attrs: script:
    derivation (
      {
        inherit name system;
        builder = bash;
        args = [
          "-euc"
          # Bash would exec a last program in its own place, and Nix kills builders of which nothing but that is left.
          "export HOME=$NIX_BUILD_TOP\n${script}\n:"
        ];
        PATH = host.path or "/usr/bin:/bin";
      }
      // attrs
    );
  # A package that is only named: nothing ever builds it.
  named = pname: build pname { } ": >$out" // {
    inherit pname;
    meta.mainProgram = pname;
  };
  packages = names: lib.genAttrs names named;

  python3Packages =
    packages [
      "aiohappyeyeballs"
      "aiohttp"
      "alembic"
      "anthropic"
      "asyncpg"
      "blockbuster"
      "brotli"
      "click"
      "cryptography"
      "genai-prices"
      "greenlet"
      "hatchling"
      "httptools"
      "httpx"
      "hypothesis"
      "jinja2"
      "jsonschema"
      "markupsafe"
      "multidict"
      "mypy"
      "openai"
      "orjson"
      "pluggy"
      "prometheus-client"
      "pydantic"
      "pyjwt"
      "pytest-asyncio"
      "pytest-timeout"
      "pytestCheckHook"
      "pyyaml"
      "rich"
      "setuptools"
      "sqlalchemy"
      "tomlkit"
      "tzdata"
      "uvloop"
      "websockets"
      "yarl"
      "zstandard"
    ]
    // {
      toPythonModule = package: package;
      buildPythonApplication =
        given:
        let
          attrs = given { inherit finalPackage; };
          finalPackage = application attrs // {
            overrideAttrs =
              change:
              python3Packages.buildPythonApplication (
                final:
                let
                  before = given final;
                in
                before // change before
              );
          };
        in
        finalPackage;
    };

  application =
    attrs:
    build "${attrs.pname}-${attrs.version}" { inherit (attrs) src; } ''
      ${python} -m pip install --quiet --no-deps --no-build-isolation --no-index --no-cache-dir --ignore-installed --no-warn-script-location \
        --root-user-action ignore --disable-pip-version-check --prefix $out $src
      export PYTHONPATH=$(echo $out/lib/python*/site-packages)
      mv $out/bin/aimux $out/bin/.aimux-wrapped
      printf '#!${bash}\nPYTHONPATH=%s exec %s "$@"\n' $PYTHONPATH $out/bin/.aimux-wrapped >$out/bin/aimux
      chmod +x $out/bin/aimux
      installShellCompletion() { shift 2; mkdir -p $out/share/completions; mv "$@" $out/share/completions; }
      installManPage() { mkdir -p $out/share/man/man1; mv "$@" $out/share/man/man1; }
      cd "$NIX_BUILD_TOP"
      ${attrs.postInstall}
    ''
    // {
      inherit (attrs)
        pname
        version
        meta
        build-system
        env
        dependencies
        nativeCheckInputs
        enabledTestPaths
        pytestFlags
        disabledTestMarks
        disabledTestPaths
        ;
    }
    // attrs.passthru;

  pkgs =
    packages [
      "coreutils"
      "git"
      "gnumake"
      "installShellFiles"
      "jq"
      "kubectl"
      "nginx"
      "nix"
      "nixfmt-tree"
      "openssl"
      "ruff"
      "systemd"
    ]
    // {
      inherit lib pkgs;
      stdenv = rec {
        hostPlatform = {
          inherit system;
          isLinux = builtins.match ".*-linux" system != null;
        };
        buildPlatform.canExecute = _: true;
        cc.cc.lib = named "gcc-lib";
      };
      prometheus.cli = named "promtool";
      python3 = named "python3" // {
        interpreter = python;
        pkgs = python3Packages;
        withPackages =
          select:
          let
            selected = select python3Packages;
          in
          build "python3-env" { packages = map (p: "${p}") selected; } ''
            mkdir -p $out/bin
            for package in $packages; do ln -s $package/bin/* $out/bin/; done
          ''
          // {
            inherit selected;
          };
      };
      formats.json =
        { }:
        {
          type = lib.types.anything;
          generate = name: value: builtins.toFile name (builtins.toJSON value);
        };
      runCommand = build;
      writeShellScriptBin =
        name: text:
        build name { inherit text; } ''
          mkdir -p $out/bin
          printf '#!${bash}\n%s' "$text" >$out/bin/${name}
          chmod +x $out/bin/${name}
        '';
      writeText = builtins.toFile;
      mkShell = attrs: build "shell" { inherit (attrs) packages RUFF LD_LIBRARY_PATH; } ": >$out";
      # Evaluates every machine of the test; there is nothing here to boot them with.
      testers.runNixOSTest =
        test:
        let
          machines = builtins.mapAttrs (_: node: nixosSystem { modules = [ node ]; }) test.nodes;
          units = builtins.mapAttrs (_: m: m.config.systemd.services) machines;
        in
        build "vm-test-${test.name}" {
          inherit (test) testScript;
          units = builtins.toJSON units;
        } ": >$out";
      callPackage =
        file: args:
        let
          f = import file;
        in
        f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // args);
    };

  nixosSystem =
    { modules }:
    lib.evalModules {
      modules = [ ./nixos.nix ] ++ modules;
      specialArgs = { inherit pkgs; };
    };
in
pkgs // { inherit nixosSystem; }
