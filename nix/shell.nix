# All that `make test` and `make run` need: the virtual environment that they set up takes the Python packages.
{
  lib,
  stdenv,
  mkShell,
  python3,
  ruff,
  gnumake,
  git,
  nix,
  nginx,
  prometheus,
  kubectl,
  systemd,
}:

mkShell {
  packages = [
    python3
    gnumake
    git
    nix
    nginx
    prometheus.cli
    kubectl
  ]
  ++ lib.optional stdenv.hostPlatform.isLinux systemd;

  # pip's wheels look for libstdc++ where NixOS has none, and pip's ruff is a program of the same kind.
  LD_LIBRARY_PATH = lib.optionalString stdenv.hostPlatform.isLinux (lib.makeLibraryPath [ stdenv.cc.cc.lib ]);
  RUFF = lib.getExe ruff;
}
