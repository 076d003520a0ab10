//! Opens arbitrary bytes as a model and reads everything that was accepted. Run with
//! `cargo +nightly fuzz run open -- -max_len=65536 -rss_limit_mb=512`; small GGUF files make a good corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recua_gguf::{Gguf, Header, Writer, decode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_vec(bytes.to_vec()) else { return };
    let metadata = file.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key).map(std::ptr::from_ref), Some(std::ptr::from_ref(value)));
        let _ = (metadata.u32(key), metadata.f32(key), metadata.str(key), metadata.bool(key));
        let _ = (metadata.u32s(key), metadata.i32s(key), metadata.f32s(key), metadata.bools(key));
        if let Ok(Some(strings)) = metadata.strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
            assert!(strings.iter().enumerate().all(|(i, s)| strings.get(i) == Some(s)));
        }
        let _ = value.to_string();
    }
    let mut header = Header::new();
    header.copy_metadata(metadata, |_| true).expect("what was read can be written");
    for tensor in file.tensors() {
        header.tensor(&tensor.name, tensor.ty, tensor.dims()).expect("what was read can be written");
        let data = file.data(tensor).to_vec().expect("it is in memory");
        assert_eq!(data.len(), tensor.n_bytes());
        if tensor.ty.is_decodable() {
            let mut row = vec![0.0; tensor.cols()];
            decode(tensor.ty, &data[..tensor.row_bytes()], &mut row).expect("a row is whole blocks");
        }
    }
    // A file that was accepted must survive being written and read again.
    let mut writer = Writer::new(Vec::new(), &header).expect("names are unique");
    for tensor in file.tensors() {
        let data = file.data(tensor).to_vec().expect("it is in memory");
        writer.write(&tensor.name, &data).expect("sizes are as declared");
    }
    let again =
        Gguf::from_vec(writer.finish().expect("all is written")).expect("what was written can be read");
    assert_eq!(again.tensors().len(), file.tensors().len());
});
