# The module among all of NixOS's own, with their types and assertions, as JSON for tests/nix. `nixpkgs` is a folder with
# nixpkgs' lib/ and nixos/. Packages are the stub's, and those that NixOS itself takes are only named: nothing is built.
{ nixpkgs, machine }:
let
  lib = import (nixpkgs + "/lib");
  stub = import ./stub/pkgs.nix {
    system = "x86_64-linux";
    inherit lib;
  };
  named =
    name:
    stub.runCommand name { } ": >$out"
    // {
      pname = name;
      version = "17.2";
      meta.mainProgram = name;
      override = _: named name;
    };
  format = _: {
    type = lib.types.attrsOf lib.types.anything;
    generate = name: value: builtins.toFile name (builtins.toJSON value);
  };
  postgresql = named "postgresql-17" // {
    psqlSchema = "17";
    withPackages = _: named "postgresql";
  };
  platform = lib.systems.elaborate "x86_64-linux";
  pkgs =
    stub
    // lib.genAttrs [
      "bashInteractive"
      "fish"
      "glibcLocales"
      "kexec-tools"
      "pkgsi686Linux"
      "shadow"
      "sudo"
      "xonsh"
      "zsh"
      "gnused"
      "gnugrep"
      "findutils"
      "tzdata"
    ] named
    // {
      _type = "pkgs";
      __splicedPackages = pkgs;
      appendOverlays = _: pkgs;
      config = { };
      overlays = [ ];
      writeText = name: text: stub.runCommand name { inherit text; } ": >$out";
      formats =
        lib.genAttrs [
          "hocon"
          "ini"
          "json"
          "keyValue"
          "libconfig"
          "toml"
          "xml"
          "yaml"
        ] (_: format)
        // {
          systemd = { inherit (format { }) type; };
        };
      stdenv = stub.stdenv // {
        isx86_64 = true;
        isAarch64 = false;
        isLinux = true;
        hostPlatform = platform;
        buildPlatform = platform;
      };
      postgresql_16 = postgresql;
      postgresql_17 = postgresql;
      linuxPackages = lib.makeExtensible (_: {
        kernel = lib.makeOverridable (
          _:
          named "linux"
          // {
            features = { };
            kernelOlder = _: false;
            kernelAtLeast = _: true;
            config = lib.genAttrs [ "isDisabled" "isEnabled" "isModule" "isNo" "isSet" "isYes" ] (_: _: true);
          }
        ) { features = { }; };
      });
    };
  inherit
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      inherit lib;
      system = null;
      modules = [
        ../module.nix
        machine
        {
          nixpkgs.pkgs = pkgs;
          system.stateVersion = "25.05";
          boot.isContainer = true; # no boot loader, no kernel, no file systems of its own
          documentation.enable = false;
          environment.stub-ld.enable = false;
        }
      ];
    })
    config
    ;
in
{
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  service = config.systemd.services.aimux.serviceConfig;
  unit = config.systemd.units."aimux.service".text;
  socket = config.systemd.units."aimux.socket".text;
  ports = config.networking.firewall.allowedTCPPorts;
  postgresql = { inherit (config.services.postgresql) enable ensureDatabases ensureUsers; };
}
