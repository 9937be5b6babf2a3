//! The answer of `sopin doctor`, for people: a line for each subject.

use std::fmt;

use super::answer::{DoctorAnswer, Subject, SubjectVerdict};
use crate::output::{BAD, DOUBTFUL, GOOD, shown};

/// The answer as text.
pub struct DoctorPage<'a>(pub &'a DoctorAnswer);

impl fmt::Display for DoctorPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Subject { name, verdict, meaning, remedy, .. } in &self.0.subjects {
            let style = match verdict {
                SubjectVerdict::Ok => GOOD,
                SubjectVerdict::Limited => DOUBTFUL,
                SubjectVerdict::No => BAD,
            };
            write!(f, "{name:<9}  {style}{:<7}{style:#}  {}", verdict.word(), shown(meaning))?;
            if let Some(remedy) = remedy {
                write!(f, "; {}", shown(remedy))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_subject_is_one_line() {
        let answer = DoctorAnswer::new(vec![
            Subject::new("library", SubjectVerdict::Ok, "found", json!({})),
            Subject::new("pin", SubjectVerdict::No, "a\nb", json!({})).with_remedy("do this"),
            Subject::new("store", SubjectVerdict::Limited, "c", json!({})).with_remedy(""),
        ]);
        let text = anstream::adapter::strip_str(&DoctorPage(&answer).to_string()).to_string();
        assert_eq!(text, "library    ok       found\npin        no       a\\nb; do this\nstore      limited  c\n");
        assert_eq!(answer.verdict, SubjectVerdict::No);
    }
}
