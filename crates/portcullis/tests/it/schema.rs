//! `portcullis schema`.

use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::Value;

use crate::binary::{root, run};
use crate::examples::configurations;

fn validator() -> Validator {
    let text = run(&root(), &["schema"]).yes();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn every_example_is_valid() {
    let validator = validator();
    let files = configurations().into_iter().flat_map(|path| match path.is_dir() {
        true => std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect(),
        false => vec![path],
    });
    let files: Vec<PathBuf> = files.collect();
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let value = read(&std::fs::read_to_string(&path).unwrap());
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}:\n{}", path.display(), errors.join("\n"));
    }
}

#[test]
fn slips_are_refused() {
    let validator = validator();
    let route = |rest: &str| read(&format!("routes: {{ a: {{ match: /a, to: b, {rest} }} }}"));
    assert!(validator.is_valid(&route("auth: idp")));
    for slip in ["auht: idp", "timeout: fast", "public: true", "body_max: -1", "limits: [lots]"] {
        assert!(!validator.is_valid(&route(slip)), "{slip}");
    }
}
