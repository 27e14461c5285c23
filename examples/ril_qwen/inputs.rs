//! The user's files as they were when a run began, so that a resumed run does not go on with others.

use std::io::Read;
use std::path::{Path, PathBuf};

use ril::RilError;
use serde::{Deserialize, Serialize};

use crate::args::Settings;

/// A file that a run reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    path: PathBuf,
    bytes: u64,
    /// FNV-1a of the content, 64 bits; not of weights, which are large and whose size is enough to tell models apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fnv1a: Option<String>,
}

/// The inputs as they are now, ordered; none for the digits, which are part of the program.
///
/// # Errors
/// [`RilError::Io`] with the file.
pub fn inputs(settings: &Settings) -> Result<Vec<Input>, RilError> {
    let files = [&settings.data, &settings.teacher_responses].into_iter().flatten();
    let mut inputs = files.map(|path| Input::hashed(path)).collect::<Result<Vec<_>, _>>()?;
    let Some(model) = &settings.model else { return Ok(inputs) };
    let entries = std::fs::read_dir(model).map_err(RilError::io(model))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_unstable();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("json" | "jinja") => inputs.push(Input::hashed(&path)?),
            Some("safetensors") => inputs.push(Input::sized(&path)?),
            _ => {}
        }
    }
    Ok(inputs)
}

/// # Errors
/// [`RilError::Input`] with the first file that is not as it was.
pub fn check_unchanged(begun_with: &[Input], now: &[Input]) -> Result<(), RilError> {
    let changed = |input: &&Input| !now.contains(input);
    let added = |input: &&Input| !begun_with.iter().any(|begun| begun.path == input.path);
    let changed = begun_with.iter().find(changed).or_else(|| now.iter().find(added));
    match changed {
        None => Ok(()),
        Some(Input { path, .. }) => Err(RilError::Input(format!(
            "{}: has changed since this run began; put the old file back, or begin a new run",
            path.display()
        ))),
    }
}

impl Input {
    fn sized(path: &Path) -> Result<Self, RilError> {
        let bytes = std::fs::metadata(path).map_err(RilError::io(path))?.len();
        Ok(Self { path: path.to_path_buf(), bytes, fnv1a: None })
    }

    fn hashed(path: &Path) -> Result<Self, RilError> {
        let mut file = std::fs::File::open(path).map_err(RilError::io(path))?;
        let (mut hash, mut bytes) = (0xcbf2_9ce4_8422_2325_u64, 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut buffer).map_err(RilError::io(path))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hash = buffer[..read].iter().fold(hash, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        }
        Ok(Self { path: path.to_path_buf(), bytes, fnv1a: Some(format!("{hash:016x}")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_hash_is_fnv1a() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "foobar").unwrap();
        // Test vector of the FNV reference code.
        assert_eq!(Input::hashed(&path).unwrap().fnv1a.as_deref(), Some("85944171f73967e8"));
    }

    #[test]
    fn a_changed_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        std::fs::create_dir(path("model")).unwrap();
        for name in ["data.jsonl", "teachers.jsonl", "model/config.json", "model/model.safetensors"] {
            write(name, "as it was");
        }
        let mut settings = Settings::parse_from(["ril_qwen"]);
        settings.model = Some(path("model"));
        settings.data = Some(path("data.jsonl"));
        settings.teacher_responses = Some(path("teachers.jsonl"));
        let begun_with = inputs(&settings).unwrap();
        check_unchanged(&begun_with, &inputs(&settings).unwrap()).unwrap();
        for name in ["data.jsonl", "teachers.jsonl", "model/config.json", "model/model.safetensors", "model/new.json"] {
            let before = std::fs::read_to_string(path(name)).ok();
            write(name, if name.ends_with("safetensors") { "longer than it was" } else { "as it is " });
            let error = check_unchanged(&begun_with, &inputs(&settings).unwrap()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            match before {
                Some(text) => write(name, &text),
                None => std::fs::remove_file(path(name)).unwrap(),
            }
        }
        check_unchanged(&begun_with, &inputs(&settings).unwrap()).unwrap();
    }
}
