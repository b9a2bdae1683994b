# Two machines: `gateway` runs aimux behind TLS, `upstream` runs the simulator and is the client, too.
{ module }:
let
  python = pkgs: pkgs.python3.withPackages (ps: [ (ps.toPythonModule (pkgs.callPackage ../package.nix { })) ]);

  certificate =
    pkgs:
    pkgs.runCommand "certificate" { nativeBuildInputs = [ pkgs.openssl ]; } ''
      mkdir $out
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=gateway \
        -addext subjectAltName=DNS:gateway -keyout $out/key.pem -out $out/cert.pem
    '';

  # The simulator's logins are the same at each start. This one is long due for renewal.
  login =
    pkgs:
    pkgs.runCommand "login.json" { nativeBuildInputs = [ (python pkgs) ]; } ''
      python - >$out <<'PY'
      import json
      from aimux.simulator import Simulator, credential_file
      login = json.loads(credential_file(Simulator().accounts["claude"]))
      login["claudeAiOauth"]["expiresAt"] = 1000
      print(json.dumps(login))
      PY
    '';
in
{
  name = "aimux";

  nodes = {
    upstream =
      { lib, pkgs, ... }:
      {
        networking.firewall.allowedTCPPorts = [ 9000 ];
        environment.etc."aimux-test/cert.pem".source = "${certificate pkgs}/cert.pem";
        systemd.services.simulator = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.ExecStart = "${lib.getExe (pkgs.callPackage ../package.nix { })} simulator --host 0.0.0.0 --port 9000";
        };
      };

    gateway =
      { pkgs, ... }:
      {
        imports = [ module ];
        environment.systemPackages = [ pkgs.jq ];
        # What sops or agenix would put to /run/secrets.
        environment.etc = {
          "aimux-test/alice".text = "alices-token-for-this-test";
          "aimux-test/login.json".source = login pkgs;
          "aimux-test/cert.pem".source = "${certificate pkgs}/cert.pem";
          "aimux-test/key.pem".source = "${certificate pkgs}/key.pem";
        };
        services.aimux = {
          enable = true;
          openFirewall = true;
          socketActivation = true;
          settings = {
            listen = ":8443";
            tls = {
              enabled = true;
              cert_path = "/run/credentials/aimux.service/cert";
              key_path = "/run/credentials/aimux.service/key";
            };
            providers.claude = {
              base_url = "http://upstream:9000/anthropic";
              token_url = "http://upstream:9000/oauth/anthropic/v1/oauth/token";
            };
          };
          users.alice.tokenFile = "/etc/aimux-test/alice";
          providers.claude.credentialFile = "/etc/aimux-test/login.json";
          credentials = {
            cert = "/etc/aimux-test/cert.pem";
            key = "/etc/aimux-test/key.pem";
          };
        };
      };
  };

  testScript = ''
    import shlex

    TOKEN = "alices-token-for-this-test"
    STATE = "/var/lib/private/aimux/claude/.credentials.json"
    BODY = '{"model": "claude-sonnet-5", "max_tokens": 50, "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


    def ask(token=TOKEN):
        return " ".join(
            [
                "curl --silent --show-error --no-buffer --cacert /etc/aimux-test/cert.pem",
                f"-H 'x-api-key: {token}' -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json'",
                f"-d {shlex.quote(BODY)} https://gateway:8443/claude/v1/messages",
            ]
        )


    def access_token():
        return gateway.succeed(f"jq -r .claudeAiOauth.accessToken {STATE}").strip()


    start_all()
    upstream.wait_for_unit("simulator.service")
    upstream.wait_for_open_port(9000)
    gateway.wait_for_unit("aimux.service")
    gateway.wait_for_open_port(8443)

    with subtest("a streamed request, through TLS, with the user's token"):
        assert "message_stop" in upstream.succeed(ask())

    with subtest("nobody else is served"):
        assert "authentication_error" in upstream.succeed(ask("not-a-token-of-anybody"))

    with subtest("the seeded login was renewed, and a login that is due is renewed on demand"):
        seeded = gateway.succeed("jq -r .claudeAiOauth.accessToken /etc/aimux-test/login.json").strip()
        first = access_token()
        assert first != seeded
        gateway.succeed(f"jq '.claudeAiOauth.expiresAt = 1000' {STATE} >/tmp/due && cat /tmp/due >{STATE}")
        assert "message_stop" in upstream.succeed(ask())
        assert access_token() != first

    with subtest("people and a limit, by the command that knows the service"):
        gateway.succeed("aimux users add bob")
        token = gateway.succeed("aimux tokens issue --user bob 2>/dev/null").strip()
        assert "message_stop" in upstream.succeed(ask(token))
        gateway.succeed("aimux limits set user:bob tokens_per_day=1")
        assert "rate_limit_error" in upstream.succeed(ask(token))
        assert "message_stop" in upstream.succeed(ask())

    with subtest("the dashboard lets in who has a link, once"):
        link = gateway.succeed("aimux dashboard 2>/dev/null").strip()
        visit = f"curl --silent --insecure --location --cookie /dev/null --output /dev/null --write-out '%{{http_code}}' '{link}'"
        assert gateway.succeed(visit) == "200"
        assert gateway.succeed(visit) != "200"

    with subtest("a reload keeps the process, a restart keeps the renewed login"):
        pid = gateway.succeed("systemctl show --property MainPID aimux.service")
        gateway.succeed("systemctl reload aimux.service")
        assert gateway.succeed("systemctl show --property MainPID aimux.service") == pid
        renewed = access_token()
        gateway.succeed("systemctl restart aimux.service")
        assert access_token() == renewed

    with subtest("a restart refuses no connection"):
        upstream.succeed(f"(while [ ! -e /tmp/enough ]; do {ask()}; done) >/tmp/answers 2>/tmp/failures & sleep 1")
        gateway.succeed("systemctl restart aimux.service")
        gateway.succeed("systemctl restart aimux.service")
        upstream.succeed("touch /tmp/enough; wait; sleep 1; grep -q message_stop /tmp/answers")
        upstream.succeed("test ! -s /tmp/failures")

    with subtest("the sandbox is tight"):
        gateway.succeed("systemd-analyze security --threshold=20 aimux.service")
  '';
}
