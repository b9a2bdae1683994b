# The options of NixOS that our module sets, without their types.
{ lib, ... }:
let
  any = default: lib.mkOption { inherit default; };
in
{
  options = {
    assertions = any [ ];
    boot = any { };
    environment = any { };
    fileSystems = any { };
    networking = any { };
    nixpkgs = any { };
    security = any { };
    services.postgresql = any { };
    system = any { };
    systemd = {
      services = any { };
      sockets = any { };
    };
  };
}
