//! The answer of `sopin doctor`, as in JSON. The names stay the same while `schema` does.

use serde::Serialize;
use serde_json::Value;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;

/// The verdicts, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectVerdict {
    /// Nothing has to be done.
    Ok,
    /// It works with a limitation.
    Limited,
    /// It does not work.
    No,
}

impl SubjectVerdict {
    /// Returns the word for people, which JSON has, too.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::No => "no",
        }
    }
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct DoctorAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The worst verdict.
    pub verdict: SubjectVerdict,
    /// One line each.
    pub subjects: Vec<Subject>,
}

impl DoctorAnswer {
    /// Makes the answer of its subjects.
    pub fn new(subjects: Vec<Subject>) -> Self {
        let verdict = subjects.iter().map(|subject| subject.verdict).max().unwrap_or(SubjectVerdict::Ok);
        Self { schema: SCHEMA, verdict, subjects }
    }
}

/// One subject.
#[derive(Debug, Serialize)]
pub struct Subject {
    /// Its name.
    #[serde(rename = "subject")]
    pub name: &'static str,
    /// The verdict.
    pub verdict: SubjectVerdict,
    /// The finding and its meaning, for people.
    pub meaning: String,
    /// The way out; null if there is nothing to do.
    pub remedy: Option<String>,
    /// The finding, for programs.
    pub facts: Value,
}

impl Subject {
    /// Makes a subject for which there is nothing to do.
    pub fn new(name: &'static str, verdict: SubjectVerdict, meaning: impl Into<String>, facts: Value) -> Self {
        Self { name, verdict, meaning: meaning.into(), remedy: None, facts }
    }

    /// Adds what to do.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()).filter(|remedy| !remedy.is_empty()), ..self }
    }
}
