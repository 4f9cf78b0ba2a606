//! Input lines: a command as it is, or with `--json` an object that holds one.

use zeroize::Zeroizing;

use crate::client::ui::message::{CommandId, InputLine};
use crate::common::escape::strip_line_ending;

/// One line.
pub struct Input {
    pub id: Option<CommandId>,
    /// May hold a password.
    pub line: Zeroizing<Vec<u8>>,
    pub is_json: bool,
}

/// A line that begins like an object and is none, or not one of the known fields.
pub struct InputError {
    /// If it can be told.
    pub id: Option<CommandId>,
    pub why: String,
}

impl Input {
    /// `reads_json`: a line that starts with `{` is an object.
    pub fn parse(line: &[u8], reads_json: bool) -> Result<Self, InputError> {
        if !reads_json || !line.trim_ascii_start().starts_with(b"{") {
            return Ok(Self { id: None, line: Zeroizing::new(line.to_vec()), is_json: false });
        }
        match serde_json::from_slice::<InputLine>(strip_line_ending(line)) {
            Ok(InputLine { id, command }) => {
                Ok(Self { id, line: Zeroizing::new(command.as_bytes().to_vec()), is_json: true })
            }
            Err(error) => {
                // Not the text of the error: it may quote a value, which may hold a password.
                let at = error.column();
                let why = match error.classify() {
                    serde_json::error::Category::Data => {
                        r#"expected {"id": ..., "command": "..."} and no other fields"#.to_owned()
                    }
                    _ => format!("not a JSON object: column {at}"),
                };
                Err(InputError { id: id_of(line), why })
            }
        }
    }
}

fn id_of(line: &[u8]) -> Option<CommandId> {
    #[derive(serde::Deserialize)]
    struct IdAlone {
        id: CommandId,
    }
    serde_json::from_slice(line).ok().map(|IdAlone { id }| id)
}
