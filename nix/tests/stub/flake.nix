{
  description = "Stands in for nixpkgs in tests/nix, which run without the internet";

  outputs =
    { self }:
    let
      lib = import ./lib.nix;
      legacyPackages = lib.genAttrs lib.platforms.unix (system: import ./pkgs.nix { inherit system; });
    in
    {
      lib = lib // {
        nixosSystem = args: legacyPackages.x86_64-linux.nixosSystem args;
      };
      inherit legacyPackages;
    };
}
