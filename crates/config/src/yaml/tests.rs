//! What is read, and what is said about what is not.

use expect_test::expect;

use super::*;

fn shown(text: &str) -> String {
    let mut findings = Findings::new();
    let node = read(0, text, &mut findings);
    let mut out = String::new();
    if let Some(node) = node {
        show(text, &node, 0, &mut out);
    }
    for f in findings.sorted() {
        let at = f.span.map(|span| text[span.range()].to_owned()).unwrap_or_default();
        out += &format!("{} at {at:?}: {}", f.code, f.message);
        out += &f.help.map(|help| format!(" ({help})")).unwrap_or_default();
        out += "\n";
    }
    out
}

fn show(text: &str, node: &Node, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    *out += &format!("{pad}{} {:?}\n", node.kind(), &text[node.span.range()]);
    node.items().iter().for_each(|item| show(text, item, depth + 1, out));
    for (key, value) in node.entries() {
        *out += &format!("{pad}- {:?}\n", &text[key.span.range()]);
        show(text, value, depth + 1, out);
    }
}

#[test]
fn values_and_their_places() {
    let text =
        "a: 1\nb:\n  - x y\n  - 'q'\n  - \"r\"\nc: {d: true, e: [1, 2.5]}\nf: |\n  t\né: ü\n";
    expect![[r#"
        a map "a: 1\nb:\n  - x y\n  - 'q'\n  - \"r\"\nc: {d: true, e: [1, 2.5]}\nf: |\n  t\né: ü"
        - "a"
          an integer "1"
        - "b"
          a list "- x y\n  - 'q'\n  - \"r\""
            a string "x y"
            a string "'q'"
            a string "\"r\""
        - "c"
          a map "{d: true, e: [1, 2.5]}"
          - "d"
            a boolean "true"
          - "e"
            a list "[1, 2.5]"
              an integer "1"
              a number "2.5"
        - "f"
          a string "t\n"
        - "é"
          a string "ü"
    "#]]
    .assert_eq(&shown(text));
}

#[test]
fn refusals() {
    let texts = [
        "m: { match: /users/{id}, to: x }\n",
        "m: { match: a.com/users/{id}}\n",
        "m: { a: x, match: [/{a}/{b}, c] }\n",
        "m: [*.example.com]\n",
        "m: *.example.com/x\n",
        "m: *\n",
        "m: [*]\n",
        "a: b: c\n",
        "a:\n\t- b\n",
        "a: 'x\n",
        "a: [1\n",
        "a: ]\n",
        "a: 1\na: 2\n",
        "a: &x 1\nb: *x\n",
        "a: [*x, &y b]\n",
        "a: !!str 1\n",
        "---\na: 1\n---\nb: 2\n",
        "%YAML 1.1\n---\na: 1\n",
        "<<: {a: 1}\n",
        "? [a]\n: b\n",
        ": 1\n",
        "a: 1\n b: 2\n",
        "a: `x`\n",
        "a: 1\nb\nc: 2\n",
        "k: \"a\" b\n",
        "k: \"\\d\"\n",
        "on: yes\n",
    ];
    let shown: String = texts.iter().map(|text| format!("{text:?}\n{}", shown(text))).collect();
    expect![[r#"
        "m: { match: /users/{id}, to: x }\n"
        yaml-quotes at "/users/{id}": `/users/{id}` needs quotes (quote it: `"/users/{id}"`)
        "m: { match: a.com/users/{id}}\n"
        yaml-quotes at "a.com/users/{id}": `a.com/users/{id}` needs quotes (quote it: `"a.com/users/{id}"`)
        "m: { a: x, match: [/{a}/{b}, c] }\n"
        yaml-quotes at "/{a}/{b}": `/{a}/{b}` needs quotes (quote it: `"/{a}/{b}"`)
        "m: [*.example.com]\n"
        yaml-quotes at "*.example.com": `*.example.com` needs quotes (quote it: `"*.example.com"`)
        "m: *.example.com/x\n"
        yaml-quotes at "*.example.com/x": `*.example.com/x` needs quotes (quote it: `"*.example.com/x"`)
        "m: *\n"
        yaml-quotes at "*": `*` needs quotes (quote it: `"*"`)
        "m: [*]\n"
        yaml-quotes at "*": `*` needs quotes (quote it: `"*"`)
        "a: b: c\n"
        yaml-syntax at ":": a `:` that does not belong here (a text with `: ` in it needs quotes; keys of one map stand below each other)
        "a:\n\t- b\n"
        yaml-syntax at "-": a tab (indent with spaces)
        "a: 'x\n"
        yaml-syntax at "'": quotes that are never closed (close them, or escape quotes within as `\"`)
        "a: [1\n"
        yaml-syntax at "[": a bracket that is never closed (each `[` needs a `]` and each `{` a `}`)
        "a: ]\n"
        yaml-syntax at "]": a bracket that does not close the last one opened (each `[` needs a `]` and each `{` a `}`)
        "a: 1\na: 2\n"
        duplicate-key at "a": the key `a` twice
        "a: &x 1\nb: *x\n"
        yaml-alias at "&x": anchors and aliases are not part of the language (settings are shared with `defaults` and `groups`)
        yaml-alias at "*x": anchors and aliases are not part of the language (settings are shared with `defaults` and `groups`)
        "a: [*x, &y b]\n"
        yaml-alias at "*x": anchors and aliases are not part of the language (settings are shared with `defaults` and `groups`)
        yaml-alias at "&y": anchors and aliases are not part of the language (settings are shared with `defaults` and `groups`)
        "a: !!str 1\n"
        yaml-tag at "!!str": the tag `!!str` is not part of the language (leave it out; a text is put in quotes)
        "---\na: 1\n---\nb: 2\n"
        yaml-documents at "---": a second document in one file (a file has one document; use several files)
        "%YAML 1.1\n---\na: 1\n"
        yaml-syntax at "%": directives are not part of the language (leave out lines that begin with `%`)
        "<<: {a: 1}\n"
        yaml-key at "<<": merge keys are not part of the language (use `defaults` and `groups`)
        "? [a]\n: b\n"
        yaml-key at "[a]": a map or a list cannot be a key (a key is a text; one that begins with `{` or `[` is put in quotes)
        ": 1\n"
        yaml-key at "": a `:` without a key before it (a key is a text; one that begins with `{` or `[` is put in quotes)
        "a: 1\n b: 2\n"
        yaml-syntax at ":": a `:` that does not belong here (a text with `: ` in it needs quotes; keys of one map stand below each other)
        "a: `x`\n"
        yaml-syntax at "`": a text cannot begin with this character (put the text in quotes)
        "a: 1\nb\nc: 2\n"
        yaml-syntax at "b": a key without a `:` (write `key: value`)
        "k: \"a\" b\n"
        yaml-syntax at "b": text after closing quotes (put the whole text in quotes)
        "k: \"\\d\"\n"
        yaml-syntax at "\"": an unknown escape (write a backslash in double quotes as `\\`, or use single quotes)
        "on: yes\n"
        ambiguous-boolean at "yes": `yes` is a boolean to some readers and a text to others (write `true`, or `"yes"` for the text)
    "#]].assert_eq(&shown);
}

#[test]
fn nothing_is_an_empty_map() {
    for text in ["", "# only\n", "---\n", "\u{feff}"] {
        let mut findings = Findings::new();
        let node = read(0, text, &mut findings).expect("reads");
        assert!(node.is_map() || node.is_null(), "{text:?}");
        assert!(findings.is_empty());
    }
}
