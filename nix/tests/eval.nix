# What the module makes of some settings, as JSON for tests/nix. `lib` is the stub's or the real one.
#   nix-instantiate --eval --strict --json nix/tests/eval.nix --arg machine '{ services.aimux.enable = true; }'
{
  lib ? import ./stub/lib.nix,
  machine,
}:
let
  inherit
    (lib.evalModules {
      modules = [
        ./stub/nixos.nix
        ../module.nix
        machine
      ];
      specialArgs.pkgs = import ./stub/pkgs.nix {
        system = builtins.currentSystem;
        inherit lib;
      };
    })
    config
    ;
in
{
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  services = builtins.mapAttrs (_: service: removeAttrs service [ "reloadTriggers" ]) config.systemd.services;
  inherit (config.systemd) sockets;
  postgresql = config.services.postgresql;
  ports = config.networking.firewall.allowedTCPPorts or [ ];
  config =
    if config.environment ? etc then
      builtins.fromJSON (builtins.readFile config.environment.etc."aimux/config.json".source.raw)
    else
      null;
}
