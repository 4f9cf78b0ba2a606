//! The file of vectors: sections of fields, in order, each field a text or bytes in hex.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// The fields of one section, in order.
#[derive(Default)]
pub struct Section(Vec<(String, String)>);

impl Section {
    pub fn text(&mut self, field: &str, text: impl ToString) {
        self.0.push((field.to_owned(), text.to_string()));
    }

    pub fn bytes(&mut self, field: &str, bytes: &[u8]) {
        self.text(field, hex::encode(bytes));
    }
}

/// All sections, in order.
#[derive(Default)]
pub struct Document(Vec<(&'static str, Section)>);

impl Document {
    pub fn add(&mut self, name: &'static str, fill: impl FnOnce(&mut Section)) {
        let mut section = Section::default();
        fill(&mut section);
        self.0.push((name, section));
    }

    /// JSON with one field a line, so that a difference is readable.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (at, (name, Section(fields))) in self.0.iter().enumerate() {
            let _ = write!(json, "{}\n  \"{name}\": {{", if at > 0 { "," } else { "" });
            for (at, (field, text)) in fields.iter().enumerate() {
                let separator = if at > 0 { "," } else { "" };
                let _ = write!(json, "{separator}\n    \"{field}\": {}", serde_json::Value::from(text.as_str()));
            }
            json.push_str("\n  }");
        }
        json + "\n}\n"
    }
}

/// The file in the repository.
pub fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "docs", "test-vectors.json"].iter().collect()
}

/// The file as a reader sees it.
pub struct Vectors(BTreeMap<String, BTreeMap<String, String>>);

impl Vectors {
    pub fn read() -> Self {
        let json = std::fs::read_to_string(path()).expect("docs/test-vectors.json");
        Self(serde_json::from_str(&json).expect("an object of objects of texts"))
    }

    pub fn text(&self, section: &str, field: &str) -> &str {
        let found = self.0.get(section).and_then(|fields| fields.get(field));
        found.unwrap_or_else(|| panic!("{section}.{field} is missing"))
    }

    pub fn number(&self, section: &str, field: &str) -> u64 {
        self.text(section, field).parse().expect("a number")
    }

    pub fn bytes(&self, section: &str, field: &str) -> Vec<u8> {
        hex::decode(self.text(section, field)).expect("hex")
    }
}
