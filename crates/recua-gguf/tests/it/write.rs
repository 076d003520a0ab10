//! Files this crate writes: by hand, split, quantized and synthetic.

use std::path::Path;

use recua_gguf::{FileType, GgmlType, Gguf, Header, Shape, Value, Writer, decode, encode, quantize, synth};

use crate::{Folder, testdata};

fn small_header() -> Header {
    let mut header = Header::new();
    header.set("general.architecture", "llama").unwrap();
    header.set("llama.block_count", 2u32).unwrap();
    header.set_strings("tokens", ["a", "", "\u{2581}b"]).unwrap();
    header.set_f32s("scores", &[0.5, -1.0]).unwrap();
    header.set_i32s("types", &[-1, 2]).unwrap();
    header.set_u32s("heads", &[4, 8]).unwrap();
    header.tensor("norm", GgmlType::F32, &[3]).unwrap();
    header.tensor("matrix", GgmlType::Q8_0, &[32, 2]).unwrap();
    header
}

#[test]
fn written_files_open() {
    let mut header = small_header();
    header.set("llama.block_count", 3u32).unwrap();
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let norm: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    writer.write("norm", &norm).unwrap();
    writer.append("matrix", &[7; 30]).unwrap();
    writer.append("matrix", &[8; 38]).unwrap();
    let n_bytes = writer.file_bytes();
    let bytes = writer.finish().unwrap();
    assert_eq!((bytes.len() as u64, bytes.len() % 32), (n_bytes, 0));

    let file = Gguf::from_vec(bytes).unwrap();
    let m = file.metadata();
    assert_eq!(m.iter().nth(1).unwrap(), ("llama.block_count", &Value::U32(3)), "replaced in its place");
    assert_eq!(m.strings("tokens").unwrap().unwrap().iter().last(), Some("\u{2581}b".as_bytes()));
    assert_eq!(
        (m.f32s("scores").unwrap().unwrap(), m.i32s("types").unwrap().unwrap()),
        (vec![0.5, -1.0], vec![-1, 2])
    );
    assert_eq!(m.u32s("heads").unwrap().unwrap(), [4, 8]);
    assert_eq!(file.data(file.tensor("norm").unwrap()).to_vec().unwrap(), norm);
    assert_eq!(
        file.data(file.tensor("matrix").unwrap()).to_vec().unwrap(),
        [[7; 30].as_slice(), &[8; 38]].concat()
    );

    // And once more through a copy of all metadata.
    let mut copy = Header::new();
    copy.copy_metadata(m, |_| true).unwrap();
    let copy = Gguf::from_vec(Writer::new(Vec::new(), &copy).unwrap().finish().unwrap()).unwrap();
    assert!(copy.metadata().iter().eq(m.iter()));
}

#[test]
fn the_writer_holds_callers_to_the_declaration() {
    let check = |result: Result<(), recua_gguf::Error>, parts: &[&str]| {
        let text = result.unwrap_err().to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text:?} lacks one of {parts:?}");
    };
    let mut header = small_header();
    check(header.tensor("bad", GgmlType::Q4_K, &[100]), &["bad", "Q4_K", "256"]);
    check(header.tensor("bad", GgmlType::F32, &[]), &["bad", "0 dimensions"]);
    check(header.set("general.alignment", 48u32), &["general.alignment", "48", "power of two"]);
    check(header.set_u32s("general.alignment", &[32]), &["general.alignment", "array"]);
    check(header.set("", 64u32), &["0 bytes"]);

    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    check(writer.write("matrix", &[0; 68]), &["matrix", "out of order", "norm"]);
    check(writer.write("norm", &[0; 11]), &["norm", "11", "12"]);
    check(writer.append("norm", &[0; 13]), &["norm", "13", "12"]);
    writer.append("norm", &[0; 4]).unwrap();
    check(writer.write("norm", &[0; 12]), &["norm", "16", "12"]);
    writer.append("norm", &[0; 8]).unwrap();
    check(writer.finish().map(drop), &["matrix", "0 of 68"]);

    header.tensor("norm", GgmlType::F32, &[1]).unwrap();
    check(Writer::new(Vec::new(), &header).map(drop), &["norm", "twice"]);
}

/// Writes part `no` of `count` with one tensor; its metadata says that all parts together have `total`.
fn write_part(path: &Path, no: u16, count: u16, total: i32, tensor: &str) {
    let mut header = Header::new();
    header.set("split.no", no).unwrap();
    header.set("split.count", count).unwrap();
    header.set("split.tensors.count", total).unwrap();
    if no == 0 {
        header.set("general.architecture", "llama").unwrap();
    }
    header.tensor(tensor, GgmlType::F32, &[2]).unwrap();
    let mut writer = Writer::new(std::fs::File::create(path).unwrap(), &header).unwrap();
    writer.write(tensor, &[no as u8; 8]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn split_models_open_as_one() {
    let folder = Folder::new("split");
    let part = |i: usize| folder.path(&format!("m-{i:05}-of-00003.gguf"));
    for i in 0..3 {
        write_part(&part(i + 1), i as u16, 3, 3, &format!("t{i}"));
    }
    let model = Gguf::open(part(1)).unwrap();
    assert_eq!((model.n_files(), model.tensors().len()), (3, 3));
    assert_eq!(model.file_bytes(), (1..=3).map(|i| std::fs::metadata(part(i)).unwrap().len()).sum());
    for i in 0..3 {
        assert_eq!(model.data(model.tensor(&format!("t{i}")).unwrap()).to_vec().unwrap(), [i as u8; 8]);
    }
    // Quantizing joins the parts.
    let joined = folder.path("joined.gguf");
    quantize(&model, &joined, FileType::F32, 1, &mut |_, _, _| {}).unwrap();
    let joined = Gguf::open(joined).unwrap();
    assert_eq!(
        (joined.n_files(), joined.tensors().len(), joined.metadata().get("split.count")),
        (1, 3, None)
    );

    let error = |path: &Path| Gguf::open(path).unwrap_err().to_string();
    let text = error(&part(2));
    assert!(text.contains("part 2 of 3") && text.contains("m-00001-of-00003.gguf"), "{text}");

    let renamed = folder.path("renamed.gguf");
    std::fs::copy(part(1), &renamed).unwrap();
    assert!(error(&renamed).contains("-00001-of-00003.gguf"), "{}", error(&renamed));

    std::fs::copy(part(2), part(3)).unwrap();
    let text = error(&part(1));
    assert!(text.contains("split.no") && text.contains("m-00003-of-00003.gguf"), "{text}");

    write_part(&part(3), 2, 3, 3, "t0");
    assert!(error(&part(1)).contains("\"t0\": occurs twice"), "{}", error(&part(1)));

    write_part(&part(3), 2, 4, 3, "t2");
    assert!(error(&part(1)).contains("split.count"), "{}", error(&part(1)));

    write_part(&part(3), 2, 3, 3, "t2");
    write_part(&part(1), 0, 3, 9, "t0");
    assert!(error(&part(1)).contains("split.tensors.count"), "{}", error(&part(1)));

    std::fs::remove_file(part(3)).unwrap();
    assert!(error(&part(1)).contains("m-00003-of-00003.gguf"), "{}", error(&part(1)));
}

fn values(model: &Gguf, name: &str) -> Vec<f32> {
    let tensor = model.tensor(name).unwrap();
    let mut out = vec![0.0; tensor.n_elements()];
    decode(tensor.ty, &model.data(tensor).to_vec().unwrap(), &mut out).unwrap();
    out
}

#[test]
fn quantizing_the_golden_model() {
    let folder = Folder::new("quantize");
    let input = Gguf::open(testdata("golden/tiny-F16.gguf")).unwrap();
    for (file_type, bound) in [
        (FileType::Q4_K_M, 6e-3),
        (FileType::Q5_K_S, 2e-3),
        (FileType::Q6_K, 4e-4),
        (FileType::Q8_0, 4e-5),
        (FileType::Q4_1, 6e-3),
        (FileType::BF16, 3e-6),
        (FileType::F32, 0.0),
    ] {
        let path = folder.path(&format!("{file_type}.gguf"));
        let mut steps = Vec::new();
        let report = quantize(&input, &path, file_type, 3, &mut |done, n, _| steps.push((done, n))).unwrap();
        let n = input.tensors().len();
        assert_eq!(steps, (0..=n).map(|i| (i, n)).collect::<Vec<_>>());

        let output = Gguf::open(&path).unwrap();
        assert_eq!((report.bytes_in, report.bytes_out), (input.file_bytes(), output.file_bytes()));
        assert_eq!(report.types.iter().map(|t| t.1).sum::<usize>(), n);
        assert_eq!(output.metadata().u32("general.file_type").unwrap(), Some(file_type.id()));
        assert_eq!(output.metadata().u32("general.quantization_version").unwrap(), Some(2));
        assert_eq!(
            output.metadata().get("tokenizer.ggml.tokens"),
            input.metadata().get("tokenizer.ggml.tokens")
        );
        for (a, b) in input.tensors().iter().zip(output.tensors()) {
            assert_eq!((&a.name, a.dims()), (&b.name, b.dims()));
            assert!(a.dims().len() > 1 || b.ty == GgmlType::F32);
            let (x, y) = (values(&input, &a.name), values(&output, &a.name));
            let error: f32 = x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum();
            let nmse = error / x.iter().map(|x| x * x).sum::<f32>();
            assert!(nmse <= bound, "{file_type} {} ({}): {nmse}", a.name, b.ty);
        }
        // The number of threads does not change the bytes.
        let again = folder.path("again.gguf");
        quantize(&input, &again, file_type, 1, &mut |_, _, _| {}).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
    }
    // A Q4_K_M file written here has the same tensor types as the golden one, which has llama.cpp's mix.
    let (ours, golden) =
        (Gguf::open(folder.path("Q4_K_M.gguf")).unwrap(), testdata("golden/tiny-Q4_K_M.gguf"));
    assert_eq!(
        ours.tensors().iter().map(|t| (&t.name, t.ty)).collect::<Vec<_>>(),
        Gguf::open(golden).unwrap().tensors().iter().map(|t| (&t.name, t.ty)).collect::<Vec<_>>()
    );
}

#[test]
fn a_failed_quantization_leaves_nothing() {
    let folder = Folder::new("failed");
    let mut header = Header::new();
    header.tensor("a.weight", GgmlType::F32, &[32, 2]).unwrap();
    header.tensor("b.weight", GgmlType::F32, &[32, 2]).unwrap();
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    writer.write("a.weight", &[0; 256]).unwrap();
    writer
        .write("b.weight", &[0.0f32.to_le_bytes().repeat(63), f32::NAN.to_le_bytes().to_vec()].concat())
        .unwrap();
    let input = Gguf::from_vec(writer.finish().unwrap()).unwrap();
    let target = folder.path("out.gguf");
    std::fs::write(&target, "older").unwrap();
    let text = quantize(&input, &target, FileType::Q8_0, 2, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("\"b.weight\": value 63 is NaN"), "{text}");
    assert_eq!(folder.files(), ["out.gguf"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"older");

    let text =
        quantize(&input, &folder.path("no/out.gguf"), FileType::Q8_0, 1, &mut |_, _, _| {}).unwrap_err();
    assert!(text.is_io() && text.to_string().contains("no/"), "{text}");

    let mut header = Header::new();
    header.tensor("odd.weight", GgmlType::IQ2_XXS, &[256, 1]).unwrap();
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    writer.write("odd.weight", &[0; 66]).unwrap();
    let input = Gguf::from_vec(writer.finish().unwrap()).unwrap();
    let text = quantize(&input, &target, FileType::Q8_0, 1, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("odd.weight") && text.contains("IQ2_XXS"), "{text}");
}

#[test]
fn synthetic_models_match_the_golden_ones() {
    let folder = Folder::new("synth");
    for &file_type in FileType::ALL {
        let path = folder.path("a.gguf");
        let n_bytes = synth(Shape::TINY, file_type, &path, 1, &mut |_, _| {}).unwrap();
        let model = Gguf::open(&path).unwrap();
        assert_eq!(model.file_bytes(), n_bytes);
        for tensor in model.tensors() {
            let x = values(&model, &tensor.name);
            // Uniform codes of Q4_0 run from -8 to 7, so their mean is a tenth of a deviation below zero.
            let n = x.len() as f64;
            let mean = x.iter().map(|x| *x as f64).sum::<f64>() / n;
            let std = (x.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / n).sqrt();
            let wanted = match tensor.name.as_str() {
                name if name.ends_with("_norm.weight") => 0.0,
                "token_embd.weight" => 1.0,
                _ => (tensor.cols() as f64).powf(-0.5),
            };
            assert!(
                (std - wanted).abs() <= 0.1 * wanted,
                "{file_type} {}: std {std}, wanted {wanted}",
                tensor.name
            );
            assert!(wanted == 0.0 || mean.abs() <= 0.15 * wanted, "{file_type} {}: mean {mean}", tensor.name);
        }
        if let Ok(golden) = Gguf::open(testdata(&format!("golden/tiny-{file_type}.gguf"))) {
            let directory = |m: &Gguf| {
                m.tensors().iter().map(|t| (t.name.clone(), t.ty, t.dims().to_vec())).collect::<Vec<_>>()
            };
            assert_eq!(directory(&model), directory(&golden));
            for (key, value) in golden.metadata().iter().filter(|(key, _)| *key != "general.alignment") {
                assert_eq!(model.metadata().get(key), Some(value), "{key}");
            }
        }
        synth(Shape::TINY, file_type, &folder.path("b.gguf"), 1, &mut |_, _| {}).unwrap();
        let first = std::fs::read(&path).unwrap();
        assert!(
            first == std::fs::read(folder.path("b.gguf")).unwrap(),
            "{file_type}: the same seed, the same file"
        );
        synth(Shape::TINY, file_type, &folder.path("b.gguf"), 2, &mut |_, _| {}).unwrap();
        assert!(first != std::fs::read(folder.path("b.gguf")).unwrap());
    }
    assert_eq!("8B".parse::<Shape>().unwrap(), Shape::B8);
    assert!("9b".parse::<Shape>().unwrap_err().to_string().contains("tiny 1b 3b 8b"));
}

#[test]
fn encode_appends() {
    let mut out = vec![9];
    encode(GgmlType::F32, &[1.0], &mut out).unwrap();
    encode(GgmlType::BF16, &[1.0], &mut out).unwrap();
    assert_eq!(out, [9, 0, 0, 0x80, 0x3f, 0x80, 0x3f]);
}

#[test]
fn tensors_larger_than_a_chunk() {
    // Three chunks of 2^20 values, the last one not full.
    let (cols, rows) = (320, 8000);
    let mut x: Vec<f32> = (0..cols * rows).map(|i: u64| ((i * 7919 % 10007) as f32 - 5000.0) / 1e4).collect();
    let model = |x: &[f32]| {
        let mut header = Header::new();
        header.tensor("blk.0.attn_q.weight", GgmlType::F32, &[cols, rows]).unwrap();
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        writer.write("blk.0.attn_q.weight", &bytes).unwrap();
        Gguf::from_vec(writer.finish().unwrap()).unwrap()
    };
    let folder = Folder::new("chunks");
    let path = folder.path("out.gguf");
    let mut expected = Vec::new();
    encode(GgmlType::Q8_0, &x, &mut expected).unwrap();
    for threads in [0, 1, 2, 5] {
        quantize(&model(&x), &path, FileType::Q8_0, threads, &mut |_, _, _| {}).unwrap();
        let output = Gguf::open(&path).unwrap();
        assert!(output.data(&output.tensors()[0]).to_vec().unwrap() == expected, "{threads} threads");
    }
    x[2_500_000] = f32::INFINITY;
    let text = quantize(&model(&x), &path, FileType::Q8_0, 2, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(text.contains("value 2500000 is inf"), "{text}");
}
