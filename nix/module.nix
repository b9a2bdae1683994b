{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkOption types;

  cfg = config.services.aimux;
  format = pkgs.formats.json { };
  unit = lib.importTOML ../aimux/unit.toml;

  program = if cfg.plugins == null then cfg.package else cfg.package.withPlugins cfg.plugins;
  exe = lib.getExe program;

  secretPath = types.pathWith {
    inStore = false;
    absolute = true;
  };

  # --- where it listens ---------------------------------------------------------------------------------------------

  inherit (cfg.settings) listen;
  onUnixSocket = lib.hasPrefix "unix:" listen;
  portMatch = builtins.match ".*:([0-9]{1,5})" listen;
  port =
    if onUnixSocket || portMatch == null then null else lib.toIntBase10 (builtins.head portMatch);
  # With socket activation it is systemd that binds, so that no capability is needed at all.
  lowPort = port != null && port < 1024 && !cfg.socketActivation;

  # --- the configuration --------------------------------------------------------------------------------------------

  userCredential = name: "user-${name}";
  configUser =
    name: user:
    builtins.removeAttrs user [ "tokenFile" ]
    // {
      inherit name;
    }
    // lib.optionalAttrs (user.tokenFile != null) { token = "\${cred:${userCredential name}}"; };

  finalSettings =
    cfg.settings
    // lib.optionalAttrs (cfg.users != { } || cfg.settings ? users) {
      users = cfg.settings.users or [ ] ++ lib.mapAttrsToList configUser cfg.users;
    };

  credentials =
    cfg.credentials
    // lib.mapAttrs' (name: user: lib.nameValuePair (userCredential name) user.tokenFile) (
      lib.filterAttrs (_: user: user.tokenFile != null) cfg.users
    )
    // lib.mapAttrs' (
      name: provider: lib.nameValuePair "provider-${name}" provider.credentialFile
    ) cfg.providers;

  rawConfigFile = format.generate "aimux-unchecked.json" finalSettings;

  # A mistake in the settings fails the build and not the service. Credentials are not there at build time.
  configFile =
    if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
      pkgs.runCommand "aimux.json" { raw = rawConfigFile; } ''
        ${exe} check-config --without-secrets --config $raw
        cp $raw $out
      ''
    else
      rawConfigFile;

  # --- secrets that must not be in it -------------------------------------------------------------------------------

  secretNames = [
    "api_key"
    "client_secret"
    "password"
    "token"
  ];
  isSecret =
    name: value:
    builtins.isString value
    && builtins.match ".*\\$\\{.*}.*" value == null
    && (
      builtins.elem name secretNames
      || builtins.match "(Bearer |sk-|eyJ).*" value != null
      || builtins.match "[a-z0-9+]+://[^/]*:[^/]*@.*" value != null
    );
  # The paths of literal secrets, for a message that does not repeat them.
  secretsIn =
    path: name: value:
    if builtins.isAttrs value then
      lib.concatLists (lib.mapAttrsToList (key: secretsIn "${path}.${key}" key) value)
    else if builtins.isList value then
      lib.concatLists (lib.imap0 (i: secretsIn "${path}[${toString i}]" name) value)
    else
      lib.optional (isSecret name value) path;
  secretsInSettings =
    secretsIn "settings" "" cfg.settings
    ++ secretsIn "users" "" (
      lib.mapAttrs (_: user: builtins.removeAttrs user [ "tokenFile" ]) cfg.users
    );

  usersBy = predicate: builtins.attrNames (lib.filterAttrs predicate cfg.users);
  badUsers = usersBy (_: user: (user.tokenFile != null) == (user ? token_sha256));
  badNames = builtins.filter (name: builtins.match "[A-Za-z0-9._@-]+" name == null) (
    builtins.attrNames credentials
  );
in
{
  options.services.aimux = {
    enable = lib.mkEnableOption "aimux, a gateway to a team's AI accounts";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      example = lib.literalExpression "pkgs.aimux";
      description = "The aimux package to run.";
    };

    plugins = mkOption {
      type = types.nullOr (types.functionTo (types.listOf types.package));
      default = null;
      example = lib.literalExpression "ps: [ (ps.callPackage ./my-provider.nix { }) ]";
      description = "Python packages that join the program's environment: further providers.";
    };

    settings = mkOption {
      default = { };
      example = lib.literalExpression ''
        {
          listen = ":8080";
          providers = [ "claude" "chatgpt" ];
          log_format = "json";
        }
      '';
      description = ''
        The configuration file's content, see docs/configuration.md. It is checked when the system is built.
        It lies in the world-readable store: secrets belong in {option}`services.aimux.users`,
        {option}`services.aimux.credentials` or {option}`services.aimux.environmentFile`.
      '';
      type = types.submodule {
        freeformType = format.type;
        options = {
          listen = mkOption {
            type = types.str;
            default = "127.0.0.1:8080";
            example = ":8080";
            description = "`HOST:PORT`, `:PORT`, `[IPV6]:PORT`, or `unix:PATH` together with socket activation.";
          };
          state_dir = mkOption {
            type = types.str;
            default = "/var/lib/aimux";
            example = "/var/lib/ai-mux";
            description = "Where credentials and state live: a folder directly below /var/lib.";
          };
        };
      };
    };

    users = mkOption {
      default = { };
      example = lib.literalExpression ''{ alice.tokenFile = "/run/secrets/aimux-alice"; }'';
      description = "Who may call, by name. Other fields of a user in the configuration file can be given as well.";
      type = types.attrsOf (
        types.submodule {
          freeformType = format.type;
          options.tokenFile = mkOption {
            type = types.nullOr secretPath;
            default = null;
            example = "/run/secrets/aimux-alice";
            description = ''
              File that holds this user's token; read by systemd as root, and never copied to the store.
              Null where `token_sha256` is given instead.
            '';
          };
        }
      );
    };

    providers = mkOption {
      default = { };
      example = lib.literalExpression ''{ claude.credentialFile = "/run/secrets/claude-credentials.json"; }'';
      description = "Accounts to start with, by provider.";
      type = types.attrsOf (
        types.submodule {
          options.credentialFile = mkOption {
            type = secretPath;
            example = "/run/secrets/claude-credentials.json";
            description = ''
              Credential of the account `default`, copied to the state folder where there is none yet. aimux renews
              that copy, so later changes of this file have no effect.
            '';
          };
        }
      );
    };

    credentials = mkOption {
      type = types.attrsOf secretPath;
      default = { };
      example = lib.literalExpression ''{ openai-key = "/run/secrets/openai-key"; }'';
      description = "Files that the settings name as `\${cred:NAME}`; handed over through systemd's LoadCredential.";
    };

    environmentFile = mkOption {
      type = types.nullOr secretPath;
      default = null;
      example = "/run/secrets/aimux.env";
      description = "File of NAME=VALUE lines, for `\${env:NAME}` in the settings and for `AIMUX_…` variables.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to open the port of {option}`services.aimux.settings.listen`.";
    };

    socketActivation = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether systemd holds the listening socket, so that a restart refuses no connection.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = onUnixSocket || (port != null && port >= 1 && port <= 65535);
        message = "services.aimux.settings.listen: ${builtins.toJSON listen} has no port from 1 to 65535.";
      }
      {
        assertion = onUnixSocket -> cfg.socketActivation;
        message = ''
          services.aimux.settings.listen: with a unix socket set services.aimux.socketActivation = true, so that systemd
          creates it where other services may reach it.'';
      }
      {
        assertion = builtins.match "/var/lib/[A-Za-z0-9._-]+" cfg.settings.state_dir != null;
        message = ''
          services.aimux.settings.state_dir: must be a folder directly below /var/lib, which systemd gives to the
          service's own user. Bind-mount another place there if it has to be elsewhere.'';
      }
      {
        assertion = secretsInSettings == [ ];
        message = ''
          services.aimux: ${lib.concatStringsSep ", " secretsInSettings} would put a secret into the world-readable store.
          Use services.aimux.users.<name>.tokenFile for a user's token; for anything else give the file's path in
          services.aimux.credentials.<name> and write "''${cred:<name>}" here, or "''${env:NAME}" together with
          services.aimux.environmentFile.'';
      }
      {
        assertion = badUsers == [ ];
        message = ''
          services.aimux.users: ${lib.concatStringsSep ", " badUsers} must have exactly one of tokenFile and token_sha256.'';
      }
      {
        assertion = badNames == [ ];
        message = ''
          services.aimux: systemd takes no credential named ${lib.concatStringsSep ", " badNames}; user, provider and
          credential names may have letters, digits, and . _ @ -'';
      }
    ];

    # Through /etc, so that a changed configuration reloads the service and open streams go on.
    environment.etc."aimux/config.json".source = configFile;

    networking.firewall.allowedTCPPorts = lib.optional (cfg.openFirewall && port != null) port;

    systemd.sockets = lib.mkIf cfg.socketActivation {
      aimux = {
        description = "aimux's socket";
        wantedBy = [ "sockets.target" ];
        listenStreams = [ (lib.removePrefix ":" (lib.removePrefix "unix:" listen)) ];
      };
    };

    systemd.services.aimux = {
      description = "aimux, a gateway to a team's AI accounts";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ] ++ lib.optional cfg.socketActivation "aimux.socket";
      requires = lib.optional cfg.socketActivation "aimux.socket";
      reloadTriggers = [ configFile ];
      # A restart in one step: stop and start apart would take the socket down as well.
      stopIfChanged = false;
      serviceConfig =
        unit.service
        // unit.hardening
        // unit.system
        // lib.optionalAttrs lowPort {
          AmbientCapabilities = "CAP_NET_BIND_SERVICE";
          CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";
          # A capability of a user namespace of its own does not reach the host's ports.
          PrivateUsers = false;
        }
        // {
          ExecStart = "${exe} serve --config /etc/aimux/config.json";
          ExecReload = "${exe} reload --config /etc/aimux/config.json --pid $MAINPID";
          StateDirectory = lib.removePrefix "/var/lib/" cfg.settings.state_dir;
        }
        // lib.optionalAttrs (cfg.providers != { }) {
          ExecStartPre =
            "${exe} seed --config /etc/aimux/config.json "
            + lib.concatMapStringsSep " " (name: "${name}=%d/provider-${name}") (
              builtins.attrNames cfg.providers
            );
        }
        // lib.optionalAttrs (credentials != { }) {
          LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") credentials;
        }
        // lib.optionalAttrs (cfg.environmentFile != null) {
          EnvironmentFile = cfg.environmentFile;
        };
    };
  };
}
