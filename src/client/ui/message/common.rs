//! What the results of several commands have in common.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::client::exit_code::ExitCode;

/// One name for which a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ItemFailure {
    /// As typed or as found; empty if the reason concerns all.
    pub name: String,
    /// The reason, one line.
    pub error: String,
    pub code: ExitCode,
}

/// A result that is the failure for one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NameFailure {
    pub ok: False,
    #[serde(flatten)]
    pub failure: ItemFailure,
}

impl From<ItemFailure> for NameFailure {
    fn from(failure: ItemFailure) -> Self {
        Self { ok: False, failure }
    }
}

/// The JSON value `true` and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct True;

/// The JSON value `false` and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct False;

impl Serialize for True {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

impl Serialize for False {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(false)
    }
}

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? { Ok(Self) } else { Err(de::Error::custom("expected true")) }
    }
}

impl<'de> Deserialize<'de> for False {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? { Err(de::Error::custom("expected false")) } else { Ok(Self) }
    }
}

#[cfg(test)]
mod schemas {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{False, True};

    impl JsonSchema for True {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "True".into()
        }

        fn inline_schema() -> bool {
            true
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "const": true })
        }
    }

    impl JsonSchema for False {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "False".into()
        }

        fn inline_schema() -> bool {
            true
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "const": false })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{False, True};

    #[test]
    fn each_constant_is_read_from_its_own_value_alone() {
        assert_eq!(serde_json::from_str::<True>("true").ok(), Some(True));
        assert_eq!(serde_json::from_str::<False>("false").ok(), Some(False));
        for other in ["false", "1", "null", "\"true\""] {
            assert!(serde_json::from_str::<True>(other).is_err(), "{other}");
        }
        for other in ["true", "0", "null", "\"false\""] {
            assert!(serde_json::from_str::<False>(other).is_err(), "{other}");
        }
    }
}
