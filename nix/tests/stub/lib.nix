# As much of nixpkgs' lib as our files use, so that they evaluate without the internet. Types are named, not checked:
# with AIMUX_NIXPKGS_LIB set the tests evaluate the same module with the real lib as well.
let
  inherit (builtins) attrNames concatLists concatStringsSep elem filter foldl' head isAttrs isFunction isList isPath
    listToAttrs mapAttrs match map removeAttrs stringLength substring;

  # Later values win, attribute sets merge, lists join; null stands for "not given".
  merge = a: b:
    if b == null then a
    else if isAttrs a && isAttrs b && !(a ? _type || b ? _type || a ? type) then
      a // mapAttrs (n: v: if a ? ${n} then merge a.${n} v else v) b
    else if isList a && isList b then a ++ b
    else b;

  # A type is { name; } with what its values hold: `options` and `freeform` of a submodule, `elem` of a container.
  simple = name: { inherit name; };
  fill = path: type: value:
    if type.name == "submodule" then declared path type.options value // removeAttrs value (attrNames type.options)
    else if type.name == "attrsOf" then mapAttrs (n: fill "${path}.${n}" type.elem) value
    else value;
  declared = path: options: value:
    mapAttrs (n: option:
      if option._type or "" != "option" then declared "${path}.${n}" option (value.${n} or { })
      else if value.${n} or null != null then fill "${path}.${n}" option.type value.${n}
      else if option ? default then fill "${path}.${n}" option.type option.default
      else throw "The option `${path}.${n}' was accessed but has no value defined.") options;
in
rec {
  inherit (builtins) attrNames concatMap elem filter head isAttrs isString listToAttrs mapAttrs removeAttrs toJSON;
  inherit concatStringsSep;
  genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
  nameValuePair = name: value: { inherit name value; };
  mapAttrsToList = f: set: map (n: f n set.${n}) (attrNames set);
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  filterAttrs = f: set: removeAttrs set (filter (n: !(f n set.${n})) (attrNames set));
  toLower =
    let
      letters = s: filter (c: c != "" && c != [ ]) (builtins.split "" s);
    in
    builtins.replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
  hiPrio = p: p;
  last = xs: builtins.elemAt xs (builtins.length xs - 1);
  optional = c: x: if c then [ x ] else [ ];
  optionals = c: xs: if c then xs else [ ];
  optionalAttrs = c: set: if c then set else { };
  optionalString = c: s: if c then s else "";
  concatLists = builtins.concatLists;
  imap0 = f: xs: builtins.genList (i: f i (builtins.elemAt xs i)) (builtins.length xs);
  concatMapStringsSep = sep: f: xs: concatStringsSep sep (map f xs);
  hasPrefix = p: s: substring 0 (stringLength p) s == p;
  removePrefix = p: s: if hasPrefix p s then substring (stringLength p) (-1) s else s;
  toIntBase10 = s: builtins.fromJSON (let m = match "0*([0-9]+)" s; in head m);
  importTOML = path: builtins.fromTOML (builtins.readFile path);
  getExe = p: "${p}/bin/${p.meta.mainProgram or p.pname}";
  getExe' = p: name: "${p}/bin/${name}";
  makeLibraryPath = concatMapStringsSep ":" (p: "${p}/lib");
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  licenses.mit.spdxId = "MIT";
  platforms.unix = [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ];

  fileset = {
    unions = concatMap (x: if isList x then x else [ x ]);
    toSource = { root, fileset }: builtins.path {
      path = root;
      name = "source";
      filter = path: _: builtins.any (f: hasPrefix "${toString f}/" "${path}/" || hasPrefix "${path}/" "${toString f}/") fileset;
    };
  };

  types = {
    attrsOf = elem: { name = "attrsOf"; inherit elem; };
    submodule = { options ? { }, freeformType ? null }: { name = "submodule"; inherit options; };
    nullOr = elem: elem;
    functionTo = _: simple "function";
    listOf = _: simple "list";
    pathWith = _: simple "path";
  } // listToAttrs (map (n: nameValuePair n (simple n)) [ "anything" "bool" "package" "str" ]);
  mkOption = option: { _type = "option"; type = simple "anything"; } // option;
  mkEnableOption = name: mkOption { default = false; description = "Whether to enable ${name}."; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };

  evalModules = { modules, specialArgs ? { } }:
    let
      called = map (m: let f = if isPath m then import m else m; r = if isFunction f then f args else f; in
        if r ? options || r ? config then r else { config = r; }) modules;
      args = { inherit config; lib = import ./lib.nix; } // specialArgs;
      # The names stay known when a condition is not, or the fixed point would be an endless loop.
      given = c:
        let when = v: if c.condition then v else null; in
        if c._type or "" == "if" then mapAttrs (_: v: if isAttrs v then mapAttrs (_: when) v else when v) c.content else c;
      inner = v:
        if v._type or "" == "if" then (if v.condition then inner v.content else null)
        else if isAttrs v && !(v ? type) then filterAttrs (_: x: x != null) (mapAttrs (_: inner) v)
        else v;
      options = foldl' merge { } (map (m: m.options or { }) called);
      values = foldl' merge { } (map (m: given (m.config or { })) called);
      config = declared "config" options (mapAttrs (n: v: if n == "services" then mapAttrs (m: w: if m == "aimux" then w else inner w) v else inner v) values);
    in
    { inherit config options; };
}
