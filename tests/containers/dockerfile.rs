//! Reads a Dockerfile and carries out its instructions without Docker: each stage is an overlay of
//! the layers of its base and a new one, which the instructions fill. What this does not know is
//! an error, so a trial cannot pass over a line.
//!
//! No registry can be reached. So a stage that is only there to build (`AS build`) runs on this
//! machine's root, with a compiler for the C library of its base, and `apk` does nothing there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::images::{Image, Images};

/// An instruction that changes the files of a stage.
enum Change {
    /// Another image or stage, sources, target, owner.
    Copy {
        from: Option<String>,
        sources: Vec<String>,
        target: String,
        owner: Option<String>,
    },
    Run(String),
}

/// A stage, before it is built.
struct Stage {
    base: String,
    name: Option<String>,
    changes: Vec<Change>,
    environment: Vec<(String, String)>,
    directory: Option<String>,
    user: Option<String>,
    entry_point: Option<Vec<String>>,
}

impl Stage {
    /// Reads what follows FROM.
    fn from(rest: &str, argument: &(&str, &str)) -> Self {
        let rest = rest.replace(&format!("${{{}}}", argument.0), argument.1);
        let (base, name) = match rest.split_once(" AS ") {
            Some((base, name)) => (base.to_owned(), Some(name.to_owned())),
            None => (rest, None),
        };
        let (changes, environment) = (Vec::new(), Vec::new());
        Self { base, name, changes, environment, directory: None, user: None, entry_point: None }
    }

    fn add(&mut self, instruction: &str, rest: &str) -> Result<(), String> {
        match instruction {
            "COPY" => self.changes.push(copy(rest)?),
            "RUN" => self.changes.push(Change::Run(rest.to_owned())),
            "ENV" => {
                let (name, value) = rest.split_once('=').ok_or("ENV without a value")?;
                self.environment.push((name.to_owned(), value.to_owned()));
            }
            "WORKDIR" => self.directory = Some(rest.to_owned()),
            "USER" => self.user = Some(rest.to_owned()),
            "ENTRYPOINT" => self.entry_point = Some(serde_json::from_str(rest).map_err(|error| error.to_string())?),
            _ => return Err(format!("{instruction} is not known here")),
        }
        Ok(())
    }
}

fn copy(rest: &str) -> Result<Change, String> {
    let (mut from, mut owner, mut paths) = (None, None, Vec::new());
    for word in rest.split_whitespace() {
        match word.split_once('=') {
            Some(("--from", name)) => from = Some(name.to_owned()),
            Some(("--chown", name)) => owner = Some(name.to_owned()),
            _ if word.starts_with("--") => return Err(format!("{word} is not known here")),
            _ => paths.push(word.to_owned()),
        }
    }
    let target = paths.pop().ok_or("COPY without a target")?;
    Ok(Change::Copy { from, sources: paths, target, owner })
}

/// Reads the stages. Of arguments there is only TARGETARCH.
fn parse(text: &str) -> Result<Vec<Stage>, String> {
    let (mut stages, mut argument) = (Vec::<Stage>::new(), ("", ""));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?} is no instruction"))?;
        match (instruction, stages.last_mut()) {
            ("FROM", _) => stages.push(Stage::from(rest, &argument)),
            ("ARG", None) if rest == "TARGETARCH" => argument = ("TARGETARCH", machine_name()),
            (_, Some(stage)) => stage.add(instruction, rest).map_err(|error| format!("{line}: {error}"))?,
            _ => return Err(format!("{line}: not known here")),
        }
    }
    Ok(stages)
}

/// Builds the last stage of the Dockerfile, and the others that it needs. `keep` says which lines
/// are carried out.
///
/// # Errors
/// What an instruction has printed, or that it is not known here.
pub fn build(
    images: &Images,
    name: &str,
    file: &Path,
    context: &Path,
    keep: fn(&str) -> bool,
) -> Result<Image, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let kept = text.lines().filter(|line| keep(line)).collect::<Vec<_>>().join("\n");
    let stages = parse(&kept)?;
    let mut built: Vec<(Option<String>, Image)> = Vec::new();
    let find = |built: &[(Option<String>, Image)], wanted: &str| {
        built.iter().find(|(name, _)| name.as_deref() == Some(wanted)).map(|(_, image)| image.clone())
    };
    let last = stages.len().saturating_sub(1);
    for (number, stage) in stages.into_iter().enumerate() {
        let is_final = number == last;
        // A stage for another architecture, whose files may not have been made.
        let is_other = stage.base == "scratch" && stage.name.as_deref().is_some_and(|name| name != machine_name());
        if is_other {
            continue;
        }
        let mut image = match find(&built, &stage.base) {
            Some(image) => image,
            None if is_final || stage.base == "scratch" => Image::base(&stage.base)?,
            None => Image::for_building(&stage.base)?,
        };
        let mut script = String::new();
        for change in &stage.changes {
            match change {
                Change::Run(command) => {
                    let _ = writeln!(script, "inside sh -c '{command}'");
                }
                Change::Copy { from, sources, target, owner } => {
                    let source = match from {
                        None => context.display().to_string(),
                        Some(from) => {
                            let other = match find(&built, from) {
                                Some(image) => image,
                                None => images.named(from)?,
                            };
                            let _ = writeln!(script, "show {}", images.lower(&other));
                            "$other".to_owned()
                        }
                    };
                    let words: Vec<_> = sources.iter().map(|path| format!("\"{source}/{path}\"")).collect();
                    let owner = owner.as_deref().unwrap_or("0:0");
                    let _ = writeln!(script, "copy {owner} '{target}' {}", words.join(" "));
                }
            }
        }
        if !script.is_empty() {
            image.layers.push(images.add_layer(&format!("{name}-{number}"), &image, &script)?);
        }
        image.environment.extend(stage.environment);
        image.directory = stage.directory.unwrap_or(image.directory);
        image.user = stage.user.map_or(Ok(image.user), |user| user_of(&user))?;
        image.entry_point = stage.entry_point.unwrap_or(image.entry_point);
        built.push((stage.name, image));
    }
    built.pop().map(|(_, image)| image).ok_or_else(|| "no stage".to_owned())
}

/// Returns the architecture as TARGETARCH names it.
pub fn machine_name() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

fn user_of(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    numbers.ok_or_else(|| format!("USER {text}: not two numbers"))
}
