{
  description = "aimux: a self-hosted gateway to a team's Claude and ChatGPT accounts";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      eachSystem =
        f:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ] (
          system: f nixpkgs.legacyPackages.${system}
        );
      packageOf = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.aimux;
    in
    {
      packages = eachSystem (pkgs: rec {
        aimux = pkgs.callPackage ./nix/package.nix { };
        default = aimux;
      });

      apps = eachSystem (pkgs: rec {
        aimux = {
          type = "app";
          program = lib.getExe (packageOf pkgs);
          meta.description = "Run the gateway";
        };
        default = aimux;
      });

      overlays.default = final: _prev: { aimux = final.callPackage ./nix/package.nix { }; };

      nixosModules = rec {
        aimux = ./nix/module.nix;
        default = aimux;
      };

      devShells = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      checks = eachSystem (
        pkgs:
        {
          package = packageOf pkgs;
          suite = pkgs.callPackage ./nix/package.nix { wholeSuite = true; };
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
          module = pkgs.callPackage ./nix/tests/module.nix {
            inherit (lib) nixosSystem;
            module = self.nixosModules.aimux;
          };
          vm = pkgs.testers.runNixOSTest (import ./nix/tests/vm.nix { module = self.nixosModules.aimux; });
        }
      );
    };
}
