//! The answer of `sopin check`.

use serde::Serialize;

/// The answer. Its names are those of the JSON output; paths that are no UTF-8
/// have U+FFFD where they are not.
#[derive(Debug, Serialize)]
pub struct CheckAnswer {
    /// The version of this structure; it changes when a field changes its meaning.
    pub schema: u32,
    pub command: String,
    pub engages: bool,
    pub library: String,
    pub files: Vec<FileInChain>,
    pub obstacles: Vec<Blame>,
    pub trial: Option<TrialResult>,
    /// The library's complaints about its settings.
    pub complaints: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FileInChain {
    Script { path: String, interpreter: String, argument: Option<String> },
    ShellScript { path: String },
    Program { path: String, machine: String, loader: Option<String> },
}

#[derive(Debug, Serialize)]
pub struct Blame {
    pub code: &'static str,
    /// The file or variable that causes the obstacle.
    pub thing: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub struct TrialResult {
    pub loader: String,
    /// Whether the program would have been run.
    pub starts: bool,
    pub objects: Vec<String>,
    pub messages: Vec<String>,
}
