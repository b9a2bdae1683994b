# The module in a whole NixOS: the configuration is rendered and checked, the unit is built, and a mistake is refused.
{
  lib,
  runCommand,
  stdenv,
  nixosSystem,
  module,
}:
let
  configOf =
    aimux:
    (nixosSystem {
      modules = [
        module
        {
          nixpkgs.hostPlatform = stdenv.hostPlatform.system;
          system.stateVersion = "26.05";
          # What NixOS asks of every machine.
          fileSystems."/" = {
            device = "/dev/vda1";
            fsType = "ext4";
          };
          boot.loader.grub.device = "/dev/vda";
          services.aimux = aimux;
        }
      ];
    }).config;
  failures = aimux: builtins.filter (a: !a.assertion) (configOf aimux).assertions;

  full = {
    enable = true;
    openFirewall = true;
    socketActivation = true;
    settings = {
      listen = ":8080";
      log_format = "json";
      providers.chatgpt.api_key = "\${cred:openai-key}";
    };
    users.alice.tokenFile = "/run/secrets/alice";
    users.bob.token_sha256 = builtins.hashString "sha256" "bob's token of some length";
    providers.claude.credentialFile = "/run/secrets/claude.json";
    credentials.openai-key = "/run/secrets/openai";
    environmentFile = "/run/secrets/aimux.env";
  };
in
assert failures full == [ ];
assert (configOf full).networking.firewall.allowedTCPPorts == [ 8080 ];
assert lib.hasPrefix "services.aimux" (builtins.head (failures { enable = true; settings.listen = ":70000"; })).message;
assert (failures { enable = true; settings.users = [ { name = "a"; token = "in the clear"; } ]; }) != [ ];
runCommand "aimux-module"
  {
    config = (configOf full).environment.etc."aimux/config.json".source;
    unit = builtins.toJSON (configOf full).systemd.services.aimux.serviceConfig;
  }
  ''
    case "$unit" in *user-alice:/run/secrets/alice*) ;; *) exit 1 ;; esac
    test -s $config
    : >$out
  ''
