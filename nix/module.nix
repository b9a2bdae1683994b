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

  # `aimux` for administrators: it knows where the service's configuration, and by that its state and socket, are.
  command = pkgs.writeShellScriptBin "aimux" ''
    export AIMUX_CONFIG="''${AIMUX_CONFIG-/etc/aimux/config.json}"
    exec ${exe} "$@"
  '';

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
  # systemd resolves no names.
  isAddress = builtins.match "([0-9.]+|\\[[0-9A-Fa-f:.]+])?:[0-9]+" listen != null;
  # With socket activation it is systemd that binds, so that no capability is needed at all.
  lowPort = port != null && port < 1024 && !cfg.socketActivation;

  needs =
    lib.optional cfg.socketActivation "aimux.socket"
    ++ lib.optional cfg.database.createLocally "postgresql.target";

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
    }
    // lib.optionalAttrs cfg.database.createLocally {
      database = {
        url = "postgresql://aimux@/aimux?host=/run/postgresql";
        encryption_key = "\${cred:database-key}";
      }
      // cfg.settings.database or { };
    };

  # What a reload can't take: AFTER_RESTART in aimux/app/app.py, and whether there is TLS.
  afterRestart = [
    "listen"
    "state_dir"
    "database"
    "refresh_check_interval"
    "refresh_before_expiry"
  ];
  restartTriggers = [
    (builtins.toJSON (
      map (name: finalSettings.${name} or null) afterRestart ++ [ (cfg.settings.tls.enabled or null) ]
    ))
  ];

  # A first login: its provider, its account's name, the systemd credential that holds it, and the file.
  seeds = lib.concatLists (
    lib.mapAttrsToList (
      name: provider:
      lib.optional (provider.credentialFile != null) {
        target = name;
        credential = "provider-${name}";
        file = provider.credentialFile;
      }
      ++ lib.mapAttrsToList (account: login: {
        target = "${name}/${account}";
        credential = "provider-${name}@${account}";
        file = login.credentialFile;
      }) provider.accounts
    ) cfg.providers
  );

  credentials =
    cfg.credentials
    // lib.mapAttrs' (name: user: lib.nameValuePair (userCredential name) user.tokenFile) (
      lib.filterAttrs (_: user: user.tokenFile != null) cfg.users
    )
    // builtins.listToAttrs (map (seed: lib.nameValuePair seed.credential seed.file) seeds)
    // lib.optionalAttrs (cfg.database.encryptionKeyFile != null) {
      database-key = cfg.database.encryptionKeyFile;
    };

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
    "authorization"
    "client_secret"
    "encryption_key"
    "old_encryption_keys"
    "password"
    "proxy-authorization"
    "token"
    "x-api-key"
  ];
  # Files that hold a secret: a path literal would copy them into the store.
  secretFiles = [
    "key_path"
    "token_file"
  ];
  isSecret =
    name: value:
    builtins.isString value
    && builtins.match ".*\\$\\{.*}.*" value == null
    && (
      builtins.elem (lib.toLower name) secretNames
      || builtins.match "(Bearer |sk-|eyJ).*" value != null
      || builtins.match "[a-z0-9+]+://[^/]*:[^/]*@.*" value != null
    );
  inStore =
    name: value:
    builtins.elem name secretFiles
    && (builtins.isPath value || lib.hasPrefix "${builtins.storeDir}/" (toString value));

  # What `f path name value` finds in each value; its path is for messages, which repeat no secret.
  findIn =
    f: path: name: value:
    if builtins.isAttrs value then
      lib.concatLists (lib.mapAttrsToList (key: findIn f "${path}.${key}" key) value)
    else if builtins.isList value then
      lib.concatLists (lib.imap0 (i: findIn f "${path}[${toString i}]" name) value)
    else
      f path name value;
  find =
    f:
    findIn f "settings" "" cfg.settings
    ++ findIn f "users" "" (
      lib.mapAttrs (_: user: builtins.removeAttrs user [ "tokenFile" ]) cfg.users
    );
  secretsInSettings = find (path: name: value: lib.optional (isSecret name value) path);
  filesInStore = find (path: name: value: lib.optional (inStore name value) path);

  # The names in `\${cred:NAME}`; `$\${` stands for itself.
  credentialsIn =
    text:
    builtins.filter (name: name != null) (
      map (groups: builtins.elemAt groups 1) (
        builtins.filter builtins.isList (builtins.split "(\\$\\$\\{)|\\$\\{cred:([^{}]*)}" text)
      )
    );
  unknownCredentials = find (
    path: _: value:
    lib.optionals (builtins.isString value) (
      map (name: "${path} names \${cred:${name}}") (
        builtins.filter (name: !(credentials ? ${name})) (credentialsIn value)
      )
    )
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
            type = types.nullOr secretPath;
            default = null;
            example = "/run/secrets/claude-credentials.json";
            description = ''
              Credential of the account `default`, copied to the state folder where there is none yet. aimux renews
              that copy, so later changes of this file have no effect.
            '';
          };
          options.accounts = mkOption {
            default = { };
            example = lib.literalExpression ''{ work.credentialFile = "/run/secrets/claude-work.json"; }'';
            description = "Further accounts of this provider, by name.";
            type = types.attrsOf (
              types.submodule {
                options.credentialFile = mkOption {
                  type = secretPath;
                  example = "/run/secrets/claude-work.json";
                  description = "Credential of this account, copied in the same way.";
                };
              }
            );
          };
        }
      );
    };

    database = {
      createLocally = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Whether to keep users, limits, the ledger and accounts in a PostgreSQL database `aimux` of this machine, which is
          made. aimux reaches it by its socket, as the user `aimux`, without a password. Without it there is SQLite.
        '';
      };
      encryptionKeyFile = mkOption {
        type = types.nullOr secretPath;
        default = null;
        example = "/run/secrets/aimux-database-key";
        description = ''
          File with the key that encrypts the accounts' credentials in PostgreSQL (`openssl rand -base64 32`). With a
          database elsewhere, name it in the settings as `\${cred:database-key}`.
        '';
      };
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
        assertion = cfg.socketActivation -> onUnixSocket || isAddress;
        message = ''
          services.aimux.settings.listen: ${builtins.toJSON listen} names a host, and systemd resolves no names. With
          services.aimux.socketActivation write an address ("127.0.0.1:8080", "[::1]:8080") or ":PORT".'';
      }
      {
        assertion = cfg.database.createLocally -> cfg.database.encryptionKeyFile != null;
        message = ''
          services.aimux.database.createLocally: set services.aimux.database.encryptionKeyFile to the path of a file with
          the key that encrypts the accounts' credentials (openssl rand -base64 32).'';
      }
      {
        assertion = filesInStore == [ ];
        message = ''
          services.aimux: ${lib.concatStringsSep ", " filesInStore} would copy a secret file into the world-readable store.
          Write its path in quotes, or give it in services.aimux.credentials.<name>: the service then has it as
          "/run/credentials/aimux.service/<name>".'';
      }
      {
        assertion = unknownCredentials == [ ];
        message = ''
          services.aimux: ${lib.concatStringsSep ", " unknownCredentials}, but there is no such credential. Give the file's
          path in services.aimux.credentials.<name>.'';
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

    environment.systemPackages = [
      program # its manual page and completions
      (lib.hiPrio command)
    ];

    services.postgresql = lib.mkIf cfg.database.createLocally {
      enable = true;
      ensureDatabases = [ "aimux" ];
      ensureUsers = [
        {
          name = "aimux";
          ensureDBOwnership = true;
        }
      ];
    };

    networking.firewall.allowedTCPPorts = lib.optional (cfg.openFirewall && port != null) port;

    systemd.sockets = lib.mkIf cfg.socketActivation {
      aimux = {
        description = "aimux's socket";
        wantedBy = [ "sockets.target" ];
        listenStreams = [ (lib.removePrefix ":" (lib.removePrefix "unix:" listen)) ];
        # A unix socket's: who may use it beside root is the group that `SocketGroup` names.
        socketConfig.SocketMode = "0660";
      };
    };

    systemd.services.aimux = {
      description = "aimux, a gateway to a team's AI accounts";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ] ++ needs;
      requires = needs;
      reloadTriggers = [ configFile ];
      inherit restartTriggers;
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
        // lib.optionalAttrs (seeds != [ ]) {
          ExecStartPre =
            "${exe} seed --config /etc/aimux/config.json "
            + lib.concatMapStringsSep " " (seed: "${seed.target}=%d/${seed.credential}") seeds;
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
