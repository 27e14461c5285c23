//! Whether a folder still holds the model that answered: a name of it that changes when the weights do.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::table::hex;
use crate::error::RilError;

/// Bytes read at the start and at the end of each file: weights of gigabytes are not read as a whole.
const SAMPLE: u64 = 1 << 20;
/// Even offsets at which a piece is read too.
const PIECES: u64 = 256;
/// Bytes of a piece.
const PIECE: u64 = 1 << 16;

/// SHA-256 of what a checkpoint's files hold (`.json`, `.safetensors`, `.jinja`, `.txt`), in hexadecimal digits.
///
/// Files of up to 18 MiB are read as a whole. Of a larger one count name, length, first and last mebibyte, and 64 KiB at each of 256
/// even offsets: a change is seen where it covers a 256th of the file in one piece, as one of a decoder's large matrices does; a
/// smaller one may be missed.
///
/// # Errors
/// [`RilError::Io`].
pub fn fingerprint(folder: &Path) -> Result<String, RilError> {
    let entries = std::fs::read_dir(folder).map_err(RilError::io(folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(RilError::io(folder))?.path()));
    let mut paths = paths.collect::<Result<Vec<_>, RilError>>()?;
    let belongs = |path: &Path| path.extension().is_some_and(|e| KINDS.iter().any(|kind| e == *kind));
    paths.retain(|path| belongs(path));
    paths.sort();
    let mut digest = Sha256::new();
    for path in paths {
        digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sample(&path, &mut digest).map_err(RilError::io(&path))?;
    }
    Ok(hex(&digest.finalize()))
}

const KINDS: [&str; 4] = ["json", "safetensors", "jinja", "txt"];

fn sample(path: &Path, digest: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    digest.update(length.to_le_bytes());
    let mut bytes = Vec::new();
    if length <= 2 * SAMPLE + PIECES * PIECE {
        file.read_to_end(&mut bytes)?;
    } else {
        let pieces = (0..PIECES).map(|i| (length / PIECES * i, PIECE));
        for (start, count) in [(0, SAMPLE), (length - SAMPLE, SAMPLE)].into_iter().chain(pieces) {
            file.seek(SeekFrom::Start(start))?;
            file.by_ref().take(count).read_to_end(&mut bytes)?;
        }
    }
    digest.update(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_have_another_fingerprint_and_other_files_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("model.safetensors", b"one");
        let first = fingerprint(folder.path()).unwrap();
        write("notes.md", b"seen");
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        write("model.safetensors", b"two");
        assert_ne!(fingerprint(folder.path()).unwrap(), first);
        assert!(fingerprint("/nowhere".as_ref()).unwrap_err().to_string().contains("/nowhere"));
    }
}
