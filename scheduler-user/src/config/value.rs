//! Values that are written as on the command line.

use std::{fmt, marker::PhantomData, path::PathBuf, time::Duration};

use clap::ValueEnum;
use scheduler_common::class::BANDS;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::nearest;
use crate::{
    cli::grammar,
    control::{AccessError, Group, Mode},
    ingress::{Limit, Steering},
    uplink::ModelChoice,
};

/// Something that is written in a word.
pub trait FromText: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong and how it is written right.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A value and how it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Text<T> {
    /// The value.
    pub value: T,
    text: String,
}

impl<T> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

struct Reading<T>(PhantomData<T>);

impl<T: FromText> de::Visitor<'_> for Reading<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let value = T::from_text(text).map_err(E::custom)?;
        Ok(Text {
            value,
            text: text.to_owned(),
        })
    }

    /// A number alone: bits per second, a priority.
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
}

/// Bits per second, as `95mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// A time, as `60s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

/// DSCP by band, as `6-7=le`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(pub [u8; BANDS]);

/// Pace by band, as `7=20mbit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(pub [u32; BANDS]);

/// Transmit queue by band, as `0-3=0,4-7=1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues(pub [u16; BANDS]);

/// Priorities by hand, as `1:10,1:20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities(pub [u32; BANDS]);

/// `latest`, `none` or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName(pub ModelChoice);

/// One of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<T>(pub T);

impl FromText for Rate {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::rate(text).map(Self)
    }
}

impl FromText for Period {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::period(text).map(Self)
    }
}

impl FromText for Dscp {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::dscp(text).map(Self)
    }
}

impl FromText for Pace {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::pace(text).map(Self)
    }
}

impl FromText for Queues {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::queues(text).map(Self)
    }
}

impl FromText for Priorities {
    fn from_text(text: &str) -> Result<Self, String> {
        grammar::priorities(text).map(Self)
    }
}

impl FromText for ModelName {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "latest" => ModelChoice::Latest,
            "none" => ModelChoice::None,
            path => ModelChoice::File(PathBuf::from(path)),
        }))
    }
}

impl FromText for Steering {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl FromText for Limit {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl FromText for Group {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: AccessError| error.to_string())
    }
}

impl FromText for Mode {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: AccessError| error.to_string())
    }
}

impl<T: ValueEnum> FromText for Choice<T> {
    fn from_text(text: &str) -> Result<Self, String> {
        T::from_str(text, false).map(Self).map_err(|_unknown| {
            let values: Vec<_> = T::value_variants()
                .iter()
                .filter_map(ValueEnum::to_possible_value)
                .collect();
            let names: Vec<&str> = values
                .iter()
                .map(clap::builder::PossibleValue::get_name)
                .collect();
            let meant = nearest(text, names.iter().copied())
                .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            format!("`{text}` is none of {}{meant}", names.join(", "))
        })
    }
}
