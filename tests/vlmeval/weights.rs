//! Whether a folder still holds the model that answered.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use ril::vlmeval::fingerprint;

/// As a decoder's weights: behind an embedding, before a head.
#[test]
fn weights_in_the_middle_of_a_file_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("model.safetensors")).unwrap();
    for length in [3_u64 << 20, 40 << 20] {
        file.set_len(length).unwrap();
        let untouched = fingerprint(folder.path()).unwrap();
        let mut known = BTreeSet::from([untouched.clone()]);
        // A tensor of a 256th of the file is never missed, wherever it lies.
        let tensor = |byte: u8| vec![byte; (length / 256) as usize];
        for start in [length / 3, length / 2 + 12_345, length * 3 / 4 + 1] {
            let mut write = |bytes: &[u8]| {
                file.seek(SeekFrom::Start(start)).unwrap();
                file.write_all(bytes).unwrap();
            };
            write(&tensor(1));
            known.insert(fingerprint(folder.path()).unwrap());
            write(&tensor(0));
        }
        assert_eq!(known.len(), 4, "{length} bytes");
        assert_eq!(fingerprint(folder.path()).unwrap(), untouched);
    }
}
