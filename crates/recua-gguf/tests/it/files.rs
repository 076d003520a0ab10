//! Files as the system has them: what is no regular file, links, other names of the same file, files that change, and what a killed process
//! leaves behind.

use std::fs;
use std::path::Path;

use recua_gguf::{FileType, GgmlType, Gguf, Header, Shape, Writer, quantize, synth};

use crate::{Folder, testdata};

fn error(path: &Path) -> String {
    Gguf::open(path).unwrap_err().to_string()
}

/// Quantizes a golden model.
fn to_q8_0(input: &Path, output: &Path) -> recua_gguf::Result<recua_gguf::Report> {
    quantize(&Gguf::open(input)?, output, FileType::Q8_0, 2, &mut |_, _, _| {})
}

#[test]
fn a_file_that_gets_shorter_is_an_error_that_names_it() {
    let folder = Folder::new("shorter");
    let path = folder.path("model.gguf");
    fs::copy(testdata("golden/tiny-F16.gguf"), &path).unwrap();
    let model = Gguf::open(&path).unwrap();
    let tensor = model.tensor("output.weight").unwrap();
    let before = model.data(tensor).to_vec().unwrap();
    let half = fs::metadata(&path).unwrap().len() / 2;
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(half).unwrap();
    let results = [
        model.data(tensor).to_vec().map(drop),
        quantize(&model, &folder.path("out.gguf"), FileType::Q8_0, 2, &mut |_, _, _| {}).map(drop),
        // Tensors of this type are copied.
        quantize(&model, &folder.path("out.gguf"), FileType::F16, 2, &mut |_, _, _| {}).map(drop),
    ];
    for result in results {
        let e = result.unwrap_err();
        assert_eq!(e.io_kind(), Some(std::io::ErrorKind::UnexpectedEof));
        assert!(e.to_string().contains("model.gguf: the file got shorter"), "{e}");
    }
    assert_eq!(folder.files(), ["model.gguf"]);
    assert_eq!(before.len(), tensor.n_bytes());
    // A renamed file is another one; the open one stays.
    fs::copy(testdata("golden/tiny-F16.gguf"), &path).unwrap();
    let model = Gguf::open(&path).unwrap();
    fs::write(folder.path("new"), "new").unwrap();
    fs::rename(folder.path("new"), &path).unwrap();
    assert_eq!(model.data(model.tensor("output.weight").unwrap()).to_vec().unwrap(), before);
}

#[test]
fn metadata_of_any_size_is_read() {
    let folder = Folder::new("metadata");
    let path = folder.path("model.gguf");
    // Shorter and longer than what is read first.
    for n in [1, 1000, 300_000, 2_000_000] {
        let mut header = Header::new();
        header.set_strings("tokens", (0..n).map(|i| i.to_string())).unwrap();
        header.set("last", n).unwrap();
        header.tensor("a.weight", GgmlType::F32, &[2]).unwrap();
        let mut writer = Writer::new(fs::File::create(&path).unwrap(), &header).unwrap();
        writer.write("a.weight", &[7; 8]).unwrap();
        writer.finish().unwrap();
        let model = Gguf::open(&path).unwrap();
        let tokens = model.metadata().strings("tokens").unwrap().unwrap();
        assert_eq!(tokens.get(n as usize - 1), Some((n - 1).to_string().as_bytes()));
        assert_eq!(model.metadata().u32("last").unwrap(), Some(n));
        assert_eq!(model.data(&model.tensors()[0]).to_vec().unwrap(), [7; 8]);
    }
    // A sparse file whose only key claims most of it.
    let claim =
        [b"GGUF\x03\0\0\0", &[0; 8][..], &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"k\x08\0\0\0"]
            .concat();
    fs::write(&path, [claim, (1u64 << 40).to_le_bytes().to_vec()].concat()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 << 40).unwrap();
    assert!(error(&path).contains("take more than 1073741824 bytes"), "{}", error(&path));
}

#[test]
fn what_is_no_model_is_named_as_what_it_is() {
    let folder = Folder::new("foreign");
    let path = folder.path("model.gguf");
    let cases: &[(&[u8], &str)] = &[
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "HTML page"),
        (b"\n  <HTML lang=en>", "HTML page"),
        (b"{\"error\":\"Entry not found\"}", "JSON"),
        (&[0; 5000], "reserved"),
        (b"\x40\0\0\0\0\0\0\0{\"__metadata__\"", "safetensors"),
    ];
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        let e = error(&path);
        assert!(e.contains("model.gguf: not a GGUF file") && e.contains(words), "{e}");
    }
    let whole = fs::read(testdata("golden/tiny-F16.gguf")).unwrap();
    for n in [2, 30, 3000, whole.len() - 100] {
        fs::write(&path, &whole[..n]).unwrap();
        assert!(error(&path).contains("download"), "{n}: {}", error(&path));
    }
}

/// Writes part `no` of 2.
fn write_part(path: &Path, no: u16) {
    let mut header = Header::new();
    header.set("split.no", no).unwrap();
    header.set("split.count", 2u16).unwrap();
    let name = format!("blk.{no}.attn_q.weight");
    header.tensor(&name, GgmlType::F32, &[3, 1]).unwrap();
    let mut writer = Writer::new(fs::File::create(path).unwrap(), &header).unwrap();
    writer.write(&name, &[no as u8; 12]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn parts_joined_end_to_end_are_recognised() {
    let folder = Folder::new("cat");
    let parts = [folder.path("m-00001-of-00002.gguf"), folder.path("m-00002-of-00002.gguf")];
    (0..2).for_each(|i| write_part(&parts[i], i as u16));
    let both = [fs::read(&parts[0]).unwrap(), fs::read(&parts[1]).unwrap()].concat();
    for name in ["joined.gguf", "m-00001-of-00002.gguf"] {
        fs::write(folder.path(name), &both).unwrap();
        let e = error(&folder.path(name));
        assert!(e.contains("`cat`") && e.contains("--merge") && !e.contains("must end in"), "{e}");
    }
}

#[test]
fn no_file_of_the_input_is_overwritten() {
    let folder = Folder::new("identity");
    let parts = [folder.path("m-00001-of-00002.gguf"), folder.path("m-00002-of-00002.gguf")];
    (0..2).for_each(|i| write_part(&parts[i], i as u16));
    let second = fs::read(&parts[1]).unwrap();
    let mut names = parts.to_vec();
    #[cfg(unix)]
    {
        names.extend([folder.path("hard.gguf"), folder.path("soft.gguf")]);
        fs::hard_link(&parts[1], &names[2]).unwrap();
        std::os::unix::fs::symlink("m-00002-of-00002.gguf", &names[3]).unwrap();
    }
    for name in &names {
        let e = to_q8_0(&parts[0], name).unwrap_err().to_string();
        assert!(e.contains("is also the input, or a part of it"), "{e}");
    }
    assert_eq!(fs::read(&parts[1]).unwrap(), second);
}

#[test]
fn any_alignment_survives_quantization() {
    let folder = Folder::new("alignment");
    let (input, output) = (folder.path("in.gguf"), folder.path("out.gguf"));
    for alignment in [1u32, 8, 64, 4096, 1 << 20] {
        let mut header = Header::new();
        header.set("general.alignment", alignment).unwrap();
        header.tensor("a_norm.weight", GgmlType::F32, &[3]).unwrap();
        header.tensor("b.weight", GgmlType::F32, &[32, 1]).unwrap();
        let mut writer = Writer::new(fs::File::create(&input).unwrap(), &header).unwrap();
        writer.write("a_norm.weight", &[1; 12]).unwrap();
        writer.write("b.weight", &[0; 128]).unwrap();
        writer.finish().unwrap();
        to_q8_0(&input, &output).unwrap();
        for path in [&input, &output] {
            let model = Gguf::open(path).unwrap();
            assert_eq!(model.metadata().u32("general.alignment").unwrap(), Some(alignment));
            assert_eq!(model.data(&model.tensors()[0]).to_vec().unwrap(), [1; 12]);
            assert_eq!(model.file_bytes() % u64::from(alignment), 0);
        }
    }
}

#[test]
fn what_killed_processes_left_is_removed_and_nothing_else() {
    let folder = Folder::new("strays");
    let kept = ["notes.gguf.tmp", ".notes.gguf.tmp", ".a.gguf.12-x.gguf.tmp", ".a.gguf.3-0.gguf.tmp"];
    let left = [".a.gguf.1-0.gguf.tmp", ".other.gguf.77-12.gguf.tmp"];
    kept.iter().chain(&left).for_each(|name| fs::write(folder.path(name), "x").unwrap());
    // Another process is still writing this one.
    let live = fs::OpenOptions::new().write(true).open(folder.path(kept[3])).unwrap();
    live.lock().unwrap();
    synth(Shape::TINY, FileType::Q8_0, &folder.path("a.gguf"), 1, &mut |_, _| ()).unwrap();
    let mut expected = [&kept[..], &["a.gguf"]].concat();
    expected.sort_unstable();
    assert_eq!(folder.files(), expected);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    fn pipe(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    /// The result of `work`, which must not wait for anything.
    fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        std::thread::spawn(move || done.send(work()));
        result.recv_timeout(Duration::from_secs(20)).expect("it waits")
    }

    #[test]
    fn a_pipe_or_socket_is_refused_before_it_can_block() {
        let folder = Folder::new("odd");
        pipe(&folder.path("pipe.gguf"));
        let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket.gguf")).unwrap();
        write_part(&folder.path("m-00001-of-00002.gguf"), 0);
        pipe(&folder.path("m-00002-of-00002.gguf"));
        for (name, words) in [
            ("pipe.gguf", "pipe.gguf: is a named pipe"),
            ("socket.gguf", "socket.gguf: is a socket"),
            ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf: is a named pipe"),
        ] {
            let path = folder.path(name);
            let e = at_once(move || error(&path));
            assert!(e.contains(words), "{e}");
        }
    }

    #[test]
    fn a_pipe_is_written_in_place_and_links_are_followed() {
        let folder = Folder::new("in-place");
        let input = testdata("golden/tiny-F16.gguf");
        let plain = folder.path("plain.gguf");
        to_q8_0(&input, &plain).unwrap();
        let expected = fs::read(&plain).unwrap();

        let through = folder.path("pipe");
        pipe(&through);
        let reader = {
            let through = through.clone();
            std::thread::spawn(move || fs::read(through).unwrap())
        };
        let written = {
            let (input, through) = (input.clone(), through.clone());
            at_once(move || to_q8_0(&input, &through).map(|report| report.bytes_out))
        };
        assert_eq!(written.unwrap(), expected.len() as u64);
        assert!(reader.join().unwrap() == expected);
        assert!(fs::symlink_metadata(&through).unwrap().file_type().is_fifo());

        fs::create_dir(folder.path("sub")).unwrap();
        fs::write(folder.path("sub/old.gguf"), "old").unwrap();
        symlink("sub/old.gguf", folder.path("link")).unwrap();
        symlink("link", folder.path("link-to-link")).unwrap();
        symlink("sub/new.gguf", folder.path("link-to-nothing")).unwrap();
        for (link, file) in [("link-to-link", "sub/old.gguf"), ("link-to-nothing", "sub/new.gguf")] {
            to_q8_0(&input, &folder.path(link)).unwrap();
            assert!(folder.path(link).is_symlink());
            assert!(!folder.path(file).is_symlink() && fs::read(folder.path(file)).unwrap() == expected);
        }
        symlink("round", folder.path("round")).unwrap();
        assert!(to_q8_0(&input, &folder.path("round")).unwrap_err().to_string().contains("round"));
        assert_eq!(
            folder.files(),
            ["link", "link-to-link", "link-to-nothing", "pipe", "plain.gguf", "round", "sub"]
        );
    }

    #[test]
    fn a_pipe_with_the_name_of_a_temporary_file_blocks_nothing() {
        let folder = Folder::new("stray-pipe");
        pipe(&folder.path(".a.gguf.1-0.gguf.tmp"));
        let target = folder.path("a.gguf");
        at_once(move || synth(Shape::TINY, FileType::Q8_0, &target, 1, &mut |_, _| ())).unwrap();
        assert_eq!(folder.files(), [".a.gguf.1-0.gguf.tmp", "a.gguf"]);
    }
}
