//! Changes to the text of a file of keys: the least that comes to what is wanted.
//!
//! People write comments into this file, and order and quote as they like. So a change is tried on
//! the lines of one entry first, and taken if the text then reads as it should; where no such try
//! does, all of the file is written anew.

use std::ops::Range;

use portcullis_policies::auth::api_keys::{KeyEntry, read_entries};

#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Append(&'a KeyEntry),
    /// The entry at this place by another.
    Replace(usize, &'a KeyEntry),
    Remove(usize),
}

impl Change<'_> {
    pub(super) fn apply(self, entries: &mut Vec<KeyEntry>) {
        match self {
            Self::Append(entry) => entries.push(entry.clone()),
            Self::Replace(at, entry) => entries[at] = entry.clone(),
            Self::Remove(at) => drop(entries.remove(at)),
        }
    }
}

/// The text after the change, which comes to `wanted`.
pub(super) fn edited(text: &str, change: Change<'_>, wanted: &[KeyEntry]) -> String {
    let tries = match change {
        Change::Append(entry) => vec![append(text, entry)],
        Change::Replace(at, entry) => vec![expiry(text, at, entry), replace(text, at, entry)],
        Change::Remove(at) => vec![replace_lines(text, at, ""), emptied(text, at)],
    };
    let good = |text: &String| read_entries(text.as_bytes()).is_ok_and(|read| read == wanted);
    tries.into_iter().flatten().find(good).unwrap_or_else(|| anew(text, wanted))
}

/// All of the file, as JSON where it was JSON.
fn anew(text: &str, entries: &[KeyEntry]) -> String {
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    match serde_json::to_string_pretty(entries) {
        Ok(json) if is_json || entries.is_empty() => json + "\n",
        _ => entries.iter().map(yaml).collect(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// One item of the list. Texts are quoted as JSON quotes them, which YAML reads the same.
pub(super) fn yaml(entry: &KeyEntry) -> String {
    let mut out = format!("- id: {}\n", quoted(&entry.id));
    let mut line = |name: &str, value: String| out += &format!("  {name}: {value}\n");
    line("hash", quoted(&entry.hash));
    line("client", quoted(&entry.client));
    if let Some(tenant) = &entry.tenant {
        line("tenant", quoted(tenant));
    }
    if !entry.scopes.is_empty() {
        line("scopes", list(&entry.scopes));
    }
    for (name, time) in [("expires", &entry.expires), ("not_before", &entry.not_before)] {
        if let Some(time) = time {
            line(name, quoted(time));
        }
    }
    out
}

/// The lines of each entry, without blank lines and comments after it, if the list is written as
/// lines that begin with `- `. The bytes of the text, and how far the dashes are indented.
fn items(text: &str) -> (Vec<Range<usize>>, usize) {
    let mut items: Vec<Range<usize>> = Vec::new();
    let (mut indent, mut at) = (None, 0);
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let content = line.trim_start_matches(' ');
        let depth = line.len() - content.len();
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        let is_dash = content.starts_with("- ") && indent.is_none_or(|indent| indent == depth);
        if is_dash {
            indent = Some(depth);
            items.push(start..at);
        } else if let Some(item) = items.last_mut() {
            item.end = at;
        }
    }
    (items, indent.unwrap_or(0))
}

fn indented(entry: &KeyEntry, indent: usize) -> String {
    let indent = " ".repeat(indent);
    yaml(entry).lines().map(|line| format!("{indent}{line}\n")).collect()
}

fn append(text: &str, entry: &KeyEntry) -> Option<String> {
    let (items, indent) = items(text);
    let mut out = match items.is_empty() {
        // Nothing but comments, and perhaps an empty list.
        true => {
            let lines = text.split_inclusive('\n').filter(|line| line.trim() != "[]");
            lines.collect::<String>()
        }
        false => text.to_owned(),
    };
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    Some(out + &indented(entry, indent))
}

fn replace_lines(text: &str, at: usize, with: &str) -> Option<String> {
    let (items, _) = items(text);
    let item = items.get(at)?;
    Some([&text[..item.start], with, &text[item.end..]].concat())
}

fn replace(text: &str, at: usize, entry: &KeyEntry) -> Option<String> {
    let (_, indent) = items(text);
    replace_lines(text, at, &indented(entry, indent))
}

/// Without its last entry: comments, and an empty list.
fn emptied(text: &str, at: usize) -> Option<String> {
    let mut out = replace_lines(text, at, "")?;
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    Some(out + "[]\n")
}

/// With another expiry of one entry, on a line of its own.
fn expiry(text: &str, at: usize, entry: &KeyEntry) -> Option<String> {
    let (items, indent) = items(text);
    let item = items.get(at)?;
    let expires = serde_json::Value::from(entry.expires.as_deref()?);
    let lines = text[item.clone()].split_inclusive('\n');
    let after_dash = text[item.start + indent + 1..].bytes().take_while(|byte| *byte == b' ');
    let depth = indent + 1 + after_dash.count();
    let (mut out, mut found) = (text[..item.start].to_owned(), false);
    for line in lines {
        let is_own = line.get(depth..).is_some_and(|rest| rest.starts_with("expires:"));
        let is_key = line.get(..depth).is_some_and(|before| matches!(before.trim(), "" | "-"));
        if is_own && is_key && !found {
            found = true;
            let comment = line.trim_end().split_once(" #").map(|(_, comment)| comment);
            let comment = comment.map(|text| format!(" #{text}")).unwrap_or_default();
            out += &format!("{}expires: {expires}{comment}\n", &line[..depth]);
        } else {
            out += line;
        }
    }
    if !found {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out += &format!("{}expires: {expires}\n", " ".repeat(depth));
    }
    Some(out + &text[item.end..])
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use portcullis_policies::auth::api_keys::generate;

    use super::*;

    fn entry(id: &str) -> KeyEntry {
        KeyEntry { hash: hash(), ..generate([1; 32], id, "acme").unwrap().entry }
    }

    fn hash() -> String {
        format!("blake3:{}", "0".repeat(64))
    }

    fn check(text: &str, change: Change<'_>, expected: &Expect) {
        let text = text.replace("HASH", &hash());
        let mut wanted = read_entries(text.as_bytes()).unwrap();
        change.apply(&mut wanted);
        let edited = edited(&text, change, &wanted);
        assert_eq!(read_entries(edited.as_bytes()).unwrap(), wanted);
        expected.assert_eq(&edited.replace(&hash(), "HASH"));
    }

    const COMMENTED: &str = "\
# Partners, by contract.

- id: a   # the first
  hash: HASH
  client: acme
  expires: 2027-01-31  # end of the contract

# The second.
- { id: b, hash: HASH, client: bob }
# Nobody yet.
";

    #[test]
    fn a_new_entry_goes_to_the_end() {
        let new = entry("c");
        check(
            COMMENTED,
            Change::Append(&new),
            &expect![[r#"
                # Partners, by contract.

                - id: a   # the first
                  hash: HASH
                  client: acme
                  expires: 2027-01-31  # end of the contract

                # The second.
                - { id: b, hash: HASH, client: bob }
                # Nobody yet.
                - id: "c"
                  hash: "HASH"
                  client: "acme"
            "#]],
        );
        check(
            "# Indented.\n  - id: a\n    hash: HASH\n    client: b",
            Change::Append(&new),
            &expect![[r#"
                # Indented.
                  - id: a
                    hash: HASH
                    client: b
                  - id: "c"
                    hash: "HASH"
                    client: "acme"
            "#]],
        );
        check(
            "# None.\n[]\n",
            Change::Append(&new),
            &expect![[r#"
                # None.
                - id: "c"
                  hash: "HASH"
                  client: "acme"
            "#]],
        );
        check(
            "",
            Change::Append(&new),
            &expect![[r#"
                - id: "c"
                  hash: "HASH"
                  client: "acme"
            "#]],
        );
    }

    #[test]
    fn json_stays_json() {
        check(
            r#"[{"id": "a", "hash": "HASH", "client": "b"}]"#,
            Change::Append(&entry("c")),
            &expect![[r#"
                [
                  {
                    "id": "a",
                    "hash": "HASH",
                    "client": "b"
                  },
                  {
                    "id": "c",
                    "hash": "HASH",
                    "client": "acme"
                  }
                ]
            "#]],
        );
        check(
            r#"[{"id": "a", "hash": "HASH", "client": "b"}]"#,
            Change::Remove(0),
            &expect![[r#"
                []
            "#]],
        );
    }

    #[test]
    fn another_expiry_changes_one_line() {
        let until = |id: &str, client: &str| KeyEntry {
            expires: Some("2026-12-01T00:00:00Z".to_owned()),
            client: client.to_owned(),
            ..entry(id)
        };
        check(
            COMMENTED,
            Change::Replace(0, &until("a", "acme")),
            &expect![[r#"
                # Partners, by contract.

                - id: a   # the first
                  hash: HASH
                  client: acme
                  expires: "2026-12-01T00:00:00Z" # end of the contract

                # The second.
                - { id: b, hash: HASH, client: bob }
                # Nobody yet.
            "#]],
        );
        check(
            COMMENTED,
            Change::Replace(1, &until("b", "bob")),
            &expect![[r#"
                # Partners, by contract.

                - id: a   # the first
                  hash: HASH
                  client: acme
                  expires: 2027-01-31  # end of the contract

                # The second.
                - id: "b"
                  hash: "HASH"
                  client: "bob"
                  expires: "2026-12-01T00:00:00Z"
                # Nobody yet.
            "#]],
        );
        check(
            "-   client: acme\n    hash: HASH\n    id: a",
            Change::Replace(0, &until("a", "acme")),
            &expect![[r#"
                -   client: acme
                    hash: HASH
                    id: a
                    expires: "2026-12-01T00:00:00Z"
            "#]],
        );
    }

    #[test]
    fn a_removed_entry_leaves_the_others_and_what_is_said_of_them() {
        check(
            COMMENTED,
            Change::Remove(0),
            &expect![[r#"
                # Partners, by contract.


                # The second.
                - { id: b, hash: HASH, client: bob }
                # Nobody yet.
            "#]],
        );
        check(
            "# Last.\n- { id: b, hash: HASH, client: bob }\n",
            Change::Remove(0),
            &expect![[r#"
                # Last.
            "#]],
        );
    }

    /// A text that lines cannot be cut from, since one of them only looks like an entry.
    #[test]
    fn what_cannot_be_edited_is_written_anew() {
        check(
            "[\n{ id: a, hash: HASH, client: \"b\n- c\" } ]\n",
            Change::Append(&entry("c")),
            &expect![[r#"
                - id: "a"
                  hash: "HASH"
                  client: "b - c"
                - id: "c"
                  hash: "HASH"
                  client: "acme"
            "#]],
        );
    }
}
