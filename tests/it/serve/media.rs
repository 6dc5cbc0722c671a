//! Videos and images: the formats in which they are sent, and where they may come from.

use super::client::{MediaServer, Server, about, base64, clip, data_uri, file_answer, redirect, with};
use crate::support::families;
use crate::support::tls::{Authority, TlsServer};
use crate::support::video_clips::{Clips, colors};
use serde_json::{Value, json};
use std::fs;

fn frames(reply: &Value) -> u64 {
    reply["sharpv"]["frames"].as_u64().unwrap_or_else(|| panic!("{reply}"))
}

#[test]
fn all_forms_of_a_video_are_the_same_video() {
    let root = tempfile::tempdir().expect("a folder");
    fs::copy(clip(), root.path().join("a clip.mp4")).expect("a copy");
    let server = Server::tiny(&["--media-root", root.path().to_str().expect("UTF-8")]);
    let data = fs::read(clip()).expect("the clip");
    let uri = data_uri(&clip(), "video/mp4");
    let absolute = root.path().canonicalize().expect("a path").join("a clip.mp4");
    let file_url = format!("file://{}", absolute.display()).replace(' ', "%20");
    let parts = [
        json!({ "type": "video_url", "video_url": { "url": uri } }),
        json!({ "type": "video_url", "video_url": uri }),
        json!({ "type": "video_url", "video_url": { "url": "a clip.mp4" } }),
        json!({ "type": "video_url", "video_url": { "url": "file://a%20clip.mp4" } }),
        json!({ "type": "video_url", "video_url": { "url": file_url } }),
        json!({ "type": "video_url", "video_url": { "url": absolute } }),
        json!({ "type": "input_video", "input_video": { "data": base64(&data) } }),
        json!({ "type": "input_video", "input_video": { "data": uri } }),
        json!({ "type": "input_video", "input_video": { "url": "file://a%20clip.mp4" } }),
        json!({ "type": "input_video", "input_video": base64(&data) }),
        json!({ "type": "video_url", "video_url": { "url": data_uri(&clip(), "application/octet-stream") }, "uuid": "x" }),
    ];
    let ask = |part: &Value| {
        let reply = server.post(&json!({ "max_tokens": 4, "messages": [{ "role": "user", "content": [
            part, { "type": "text", "text": "What?" },
        ] }] }));
        assert_eq!(reply.status, 200, "{} of {}", reply.text, part.to_string().chars().take(100).collect::<String>());
        reply
    };
    let first = ask(&parts[0]);
    for part in &parts[1..] {
        let reply = ask(part);
        assert_eq!(reply.answer(), first.answer());
        assert_eq!(reply.json()["sharpv"]["videos"], json!({ "total": 1, "cached": 1 }));
    }
}

#[test]
fn images_are_images_or_the_frames_of_a_video() {
    let server = Server::tiny(&[]);
    let clips = Clips::new();
    let image = |color: &str| {
        data_uri(
            &clips.draw(&format!("color={color}:s=64x48:d=1:r=1"), "-frames:v 1", &format!("{color}.png")),
            "image/png",
        )
    };
    let urls = ["red", "lime", "blue", "white"].map(image);
    let image = |url: &String| json!({ "type": "image_url", "image_url": { "url": url, "detail": "low" } });
    let ask = |parts: Vec<Value>, knobs: Value| {
        let content = [parts, vec![json!({ "type": "text", "text": "What?" })]].concat();
        let reply = server
            .post(&json!({ "max_tokens": 2, "messages": [{ "role": "user", "content": content }], "sharpv": knobs }));
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    };
    let one = ask(vec![image(&urls[0])], json!({}));
    assert_eq!((frames(&one), &one["sharpv"]["videos"]["total"]), (1, &json!(1)));
    let several = ask(urls.iter().map(image).collect(), json!({}));
    assert_eq!((frames(&several), &several["sharpv"]["videos"]["total"]), (4, &json!(4)));
    let video = ask(urls.iter().map(image).collect(), json!({ "images": "frames", "frames_fps": 1 }));
    assert_eq!((frames(&video), &video["sharpv"]["videos"]["total"]), (4, &json!(1)));
    let list = ask(vec![json!({ "type": "video", "video": urls })], json!({}));
    assert_eq!((frames(&list), &list["sharpv"]["videos"]["total"]), (4, &json!(1)));

    // vLLM's format.
    let jpeg = |color: &str| {
        base64(
            &fs::read(clips.draw(&format!("color={color}:s=64x48:d=1:r=1"), "-frames:v 1", &format!("{color}.jpg")))
                .expect("an image"),
        )
    };
    let uri = format!("data:video/jpeg;base64,{},{},{}", jpeg("red"), jpeg("lime"), jpeg("blue"));
    let joined = ask(vec![json!({ "type": "video_url", "video_url": { "url": uri } })], json!({}));
    assert_eq!((frames(&joined), &joined["sharpv"]["videos"]["total"]), (3, &json!(1)));
}

#[test]
fn frames_can_be_chosen_in_every_way_that_clients_use() {
    let clips = Clips::new();
    let file = clips.draw(
        &colors(&["red", "lime", "blue", "white", "black", "yellow"], 1.0, "64x48", 5),
        "-pix_fmt yuv420p",
        "six.mp4",
    );
    let server = Server::tiny(&["--prune", "off", "--evict", "off"]);
    let uri = data_uri(&file, "video/mp4");
    let ask = |fields: Value| {
        let reply = server.post(&with(with(about(&uri, "What?"), json!({ "max_tokens": 1 })), fields));
        assert_eq!(reply.status, 200, "{}", reply.text);
        frames(&reply.json())
    };
    assert_eq!(ask(json!({ "sharpv": { "num_frames": 3 } })), 3);
    assert_eq!(ask(json!({ "sharpv": { "fps": 2 } })), 12);
    assert_eq!(ask(json!({ "sharpv": { "fps": 2, "max_frames": 5 } })), 5);
    assert_eq!(ask(json!({ "sharpv": { "fps": 1, "start": 2, "end": 4 } })), 2);
    assert_eq!(ask(json!({ "media_io_kwargs": { "video": { "num_frames": 4 } } })), 4);
    assert_eq!(
        ask(
            json!({ "media_io_kwargs": { "video": { "fps": 1 } }, "mm_processor_kwargs": { "fps": 5, "do_sample_frames": true } })
        ),
        6
    );
    assert_eq!(ask(json!({ "mm_processor_kwargs": { "fps": 1 } })), 6);
    let part = json!({ "messages": [{ "role": "user", "content": [
        { "type": "video_url", "video_url": { "url": uri, "max_frames": 2 } }, { "type": "text", "text": "What?" },
    ] }], "sharpv": { "num_frames": 4 } });
    assert_eq!(frames(&server.post(&part).json()), 2, "the part's own value counts");
}

#[test]
fn frames_by_says_how_they_are_chosen() {
    let clips = Clips::new();
    // Evenly spaced frames miss the square.
    let square = "drawbox=x=20:y=10:w=24:h=24:color=white:t=fill:enable='between(t,41,44)'";
    let source = format!("color=gray:size=64x48:rate=5:duration=60,{square}");
    let uri = data_uri(&clips.draw(&source, "-pix_fmt yuv420p", "square.mp4"), "video/mp4");
    let body = |fields: Value| with(with(about(&uri, "What?"), json!({ "max_tokens": 1 })), fields);
    let server = Server::tiny(&["--evict", "off"]);
    let kept = |fields: Value| {
        let reply = server.post(&body(fields));
        assert_eq!(reply.status, 200, "{}", reply.text);
        (frames(&reply.json()), reply.json()["sharpv"]["visual_tokens"]["kept"].as_u64().expect("a number"))
    };
    let even = kept(json!({ "sharpv": { "num_frames": 4, "frames_by": "even" } }));
    let changes = kept(json!({ "sharpv": { "num_frames": 4, "frames_by": "changes" } }));
    assert_eq!((even.0, changes.0), (4, 4));
    assert!(changes.1 > even.1, "{changes:?} {even:?}");
    assert_eq!(kept(json!({ "sharpv": { "num_frames": 4, "frames_by": "auto" } })), changes);
    assert_eq!(kept(json!({ "sharpv": { "num_frames": 4 } })), changes);
    assert_eq!(kept(json!({ "media_io_kwargs": { "video": { "num_frames": 4, "frames_by": "even" } } })), even);
    let part = json!({ "max_tokens": 1, "sharpv": { "frames_by": "changes" }, "messages": [{ "role": "user", "content": [
        { "type": "video_url", "video_url": { "url": uri, "num_frames": 4, "frames_by": "even" } },
        { "type": "text", "text": "What?" },
    ] }] });
    let reply = server.post(&part).json();
    assert_eq!(reply["sharpv"]["visual_tokens"]["kept"], even.1, "the part's own value counts: {reply}");
    assert_eq!(server.post(&body(json!({ "sharpv": { "frames_by": "color" } }))).status, 400);

    let server = Server::tiny(&["--frames-by", "even"]);
    let rejected = server.post(&body(json!({ "sharpv": { "frames_by": "changes" } })));
    assert_eq!(rejected.status, 400);
    assert!(rejected.text.contains("frames_by") && rejected.text.contains("even distances"), "{}", rejected.text);
}

#[test]
fn a_request_can_set_pruning_and_eviction() {
    let server = Server::tiny(&[]);
    let uri = data_uri(&clip(), "video/mp4");
    let ask = |knobs: Value| {
        let reply = server.post(&with(about(&uri, "What?"), json!({ "sharpv": knobs, "max_tokens": 2 })));
        assert_eq!(reply.status, 200, "{}", reply.text);
        let tokens = reply.json()["usage"]["visual_tokens"].clone();
        (tokens["total"].as_u64().expect("tokens"), tokens["kept"].as_u64().expect("tokens"))
    };
    let (total, kept) = ask(json!({ "prune": "off" }));
    assert_eq!(total, kept);
    let half = ask(json!({ "keep": 0.5 })).1;
    assert!(half.abs_diff(total / 2) <= 1, "{half} of {total}");
    assert_eq!(ask(json!({ "max_visual_tokens": 7 })).1, 7);
    assert_eq!(ask(json!({ "keep": 0.25, "prune": "sharpv-paper", "evict": "off" })).1, total / 4);
}

#[test]
fn files_are_served_only_from_a_media_root() {
    let server = Server::tiny(&[]);
    for url in ["demo/clip.mp4", "file:///etc/passwd", "/etc/passwd"] {
        let reply = server.post(&about(url, "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (400, "media_not_allowed"), "{url}");
    }
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_folder_can_be_reached() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().expect("a folder");
    fs::copy(clip(), outside.path().join("secret.mp4")).expect("a copy");
    let root = tempfile::tempdir().expect("a folder");
    let inside = |name: &str| root.path().join(name);
    fs::create_dir(inside("sub")).expect("a folder");
    fs::copy(clip(), inside("good.mp4")).expect("a copy");
    symlink(outside.path().join("secret.mp4"), inside("link.mp4")).expect("a link");
    symlink(outside.path(), inside("folder")).expect("a link");
    symlink("../good.mp4", inside("sub/back.mp4")).expect("a link");
    symlink("loop", inside("loop")).expect("a link");
    let made = std::process::Command::new("mkfifo").arg(inside("pipe")).status();
    assert!(made.expect("mkfifo runs").success());

    let server = Server::tiny(&["--media-root", root.path().to_str().expect("UTF-8")]);
    let secret = outside.path().join("secret.mp4").display().to_string();
    let name = outside.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let mut messages = Vec::new();
    for url in [
        "link.mp4".to_owned(),
        "folder/secret.mp4".into(),
        secret.clone(),
        format!("file://{secret}"),
        format!("../{name}/secret.mp4"),
        format!("sub/../../{name}/secret.mp4"),
        format!("file://%2e%2e%2f{name}%2fsecret.mp4"),
        format!("file://..%2F{name}/secret.mp4"),
        format!("..\\{name}\\secret.mp4"),
        "file://evil.example/good.mp4".into(),
        "good.mp4\u{0}.txt".into(),
        "file:///dev/zero".into(),
        "/dev/stdin".into(),
        "/proc/self/environ".into(),
        "pipe".into(),
        "sub".into(),
        ".".into(),
        "".into(),
        "loop".into(),
        "missing.mp4".into(),
        "file:".into(),
    ] {
        let reply = server.post(&about(&url, "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (400, "media_not_allowed"), "{url:?}: {}", reply.text);
        messages.push(reply.text);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "the messages show which files exist: {messages:?}");
    for url in ["good.mp4", "sub/back.mp4"] {
        assert_eq!(server.post(&with(about(url, "What?"), json!({ "max_tokens": 1 }))).status, 200, "{url}");
    }
}

#[test]
fn a_file_that_was_changed_is_another_video() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("clip.mp4");
    fs::copy(clip(), &path).expect("a copy");
    let server = Server::tiny(&["--media-root", root.path().to_str().expect("UTF-8")]);
    let ask = || {
        server.post(&with(about("clip.mp4", "What?"), json!({ "max_tokens": 1 }))).json()["sharpv"]["videos"]["cached"]
            .clone()
    };
    assert_eq!((ask(), ask()), (json!(0), json!(1)));
    let clips = Clips::new();
    fs::copy(clips.draw(&colors(&["red", "lime"], 1.0, "64x48", 5), "-pix_fmt yuv420p", "other.mp4"), &path)
        .expect("a copy");
    assert_eq!((ask(), ask()), (json!(0), json!(1)));
}

#[test]
fn files_that_are_not_videos_give_errors_without_details() {
    let server = Server::tiny(&[]);
    let good = fs::read(clip()).expect("the clip");
    let mut cut = good.clone();
    cut.truncate(good.len() / 3);
    let mut broken = good.clone();
    broken[200..].fill(0x5a);
    let cases: [(&str, &[u8]); 8] = [
        ("text", b"just some text, and not a video"),
        ("nothing", b""),
        ("cut off", &cut),
        ("broken", &broken),
        ("a head alone", b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41"),
        ("a broken image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("Matroska and nothing after it", b"\x1a\x45\xdf\xa3\xff\xff\xff\xff"),
        ("a JPEG 2000 box", b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 "),
    ];
    for (name, bytes) in cases {
        let reply = server.post(&about(&format!("data:video/mp4;base64,{}", base64(bytes)), "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_media"), "{name}: {}", reply.text);
        // Errors contain neither paths nor messages of a decoder.
        for leak in ["/tmp", "/proc", "sharpv-serve", "0x", "FFmpeg", "Invalid data"] {
            assert!(!reply.text.contains(leak), "{name}: {}", reply.text);
        }
    }
    // Many small files are limited, too.
    let list = format!("data:video/jpeg;base64,{}", vec!["/9j/4A=="; 400].join(","));
    let part = json!({ "type": "video_url", "video_url": { "url": list } });
    let reply = server.post(&json!({ "messages": [{ "role": "user", "content": [part, part, part] }] }));
    assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_media"));
    assert!(reply.text.contains("1024"), "{}", reply.text);
    for uri in [
        "data:video/mp4;base64,!!!!",
        "data:video/mp4,AAAA",
        "data:text/html;base64,AAAA",
        "data:",
        "data:audio/wav;base64,AAAA",
    ] {
        let reply = server.post(&about(uri, "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_media"), "{uri}");
    }
}

/// A playlist in an upload may name local files, or addresses of the local network.
#[test]
fn playlists_are_not_followed() {
    let other = MediaServer::start(|_| file_answer(b"seen"));
    let root = tempfile::tempdir().expect("a folder");
    let target = clip().display().to_string();
    let playlists = [
        ("hls.mp4", format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{}\n#EXTINF:1.0,\nfile://{target}\n#EXT-X-ENDLIST\n", other.url("/hls"))),
        ("concat.mp4", format!("ffconcat version 1.0\nfile '{target}'\n")),
        ("dash.mp4", format!("<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" \
            type=\"static\"><BaseURL>{}</BaseURL></MPD>", other.url("/dash"))),
        ("sdp.mp4", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 9 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n".into()),
    ];
    let server = Server::tiny(&["--media-root", root.path().to_str().expect("UTF-8"), "--allow-remote"]);
    for (name, text) in &playlists {
        fs::write(root.path().join(name), text).expect("a file");
        for url in [(*name).to_owned(), format!("data:video/mp4;base64,{}", base64(text.as_bytes()))] {
            let reply = server.post(&about(&url, "What?"));
            assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_media"), "{name}: {}", reply.text);
        }
    }
    assert!(other.requests().is_empty(), "{:?}", other.requests());
}

#[test]
fn nothing_is_fetched_unless_it_is_allowed() {
    let media = MediaServer::start(|_| file_answer(b""));
    let server = Server::tiny(&[]);
    for url in [media.url("/clip.mp4"), "https://example.com/clip.mp4".into()] {
        let reply = server.post(&about(&url, "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (400, "media_not_allowed"), "{url}");
    }
    assert!(media.requests().is_empty());
}

#[test]
fn addresses_of_this_machine_and_its_network_are_not_fetched_from() {
    let media = MediaServer::start(|_| file_answer(b"seen"));
    let port = media.address.rsplit(':').next().expect("a port");
    let server = Server::tiny(&["--allow-remote"]);
    for url in [
        media.url("/"),
        "http://127.0.0.1/".into(),
        "http://localhost/".into(),
        "http://LOCALHOST./".into(),
        format!("http://localhost:{port}/"),
        "http://[::1]/".into(),
        "http://[::ffff:127.0.0.1]/".into(),
        "http://[::ffff:7f00:1]/".into(),
        "http://[64:ff9b::7f00:1]/".into(),
        "http://[2002:7f00:1::]/".into(),
        "http://[fd00::1]/".into(),
        "http://[fe80::1]/".into(),
        "http://0.0.0.0/".into(),
        "http://0/".into(),
        "http://2130706433/".into(),
        "http://0x7f000001/".into(),
        "http://0177.0.0.1/".into(),
        "http://127.1/".into(),
        "http://10.0.0.1/".into(),
        "http://172.16.0.1/".into(),
        "http://192.168.0.1/".into(),
        "http://100.64.0.1/".into(),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://224.0.0.1/".into(),
        "http://255.255.255.255/".into(),
        // Different parsers would read different hosts.
        format!("http://127.0.0.1:{port}\\@example.com/"),
        format!("http://example.com@127.0.0.1:{port}/"),
        format!("http://example.com#@127.0.0.1:{port}/\t"),
        "ftp://127.0.0.1/".into(),
        "gopher://127.0.0.1/".into(),
        "rtsp://127.0.0.1/".into(),
        "concat:a|b".into(),
        "subfile,,start,0,end,0,,:/etc/passwd".into(),
    ] {
        let reply = server.post(&about(&url, "What?"));
        assert_eq!(reply.status, 400, "{url}: {}", reply.text);
        assert!(["media_not_allowed", "invalid_media"].contains(&reply.error().as_str()), "{url}: {}", reply.text);
        assert!(!reply.text.contains("127.0.0.1") && !reply.text.contains("refused"), "{url}: {}", reply.text);
    }
    assert!(media.requests().is_empty(), "{:?}", media.requests());
}

#[test]
fn every_redirect_is_checked() {
    let other = MediaServer::start(|_| file_answer(b"seen"));
    let targets = [
        ("/other", other.url("/x")),
        ("/meta", "http://169.254.169.254/latest".to_owned()),
        ("/file", "file:///etc/passwd".into()),
        ("/v6", "http://[::1]/".into()),
        ("/ftp", "ftp://127.0.0.1/".into()),
        ("/nowhere", String::new()),
        ("/loop", "/loop".into()),
        ("/user", "http://a:b@127.0.0.1/".into()),
    ];
    let bytes = fs::read(clip()).expect("the clip");
    let answers = targets.clone();
    let media = MediaServer::start(move |path| match path {
        "/clip.mp4" => file_answer(&bytes),
        "/good" => redirect("/also-good?x=1#y"),
        "/also-good?x=1" => redirect("clip.mp4"),
        path => answers.iter().find(|(from, _)| *from == path).map_or_else(|| file_answer(b""), |(_, to)| redirect(to)),
    });
    let server = Server::tiny(&["--remote-host", &media.address]);
    for (path, target) in &targets {
        let reply = server.post(&about(&media.url(path), "What?"));
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert!(target.is_empty() || *path == "/loop" || !reply.text.contains(target.as_str()), "{}", reply.text);
    }
    assert!(other.requests().is_empty(), "{:?}", other.requests());
    assert!(media.requests().iter().filter(|path| *path == "/loop").count() <= 6);
    let good = server.post(&with(about(&media.url("/good"), "What?"), json!({ "max_tokens": 1 })));
    assert_eq!(good.status, 200, "{}", good.text);
    // The same bytes are the same video, wherever they come from.
    let same = server.post(&with(about(&data_uri(&clip(), "video/mp4"), "What?"), json!({ "max_tokens": 1 })));
    assert_eq!(same.json()["sharpv"]["videos"]["cached"], 1);
}

/// Like the servers of a company, with certificates of its own authority.
#[test]
fn media_come_over_tls_from_servers_that_a_variable_trusts() {
    let bytes = fs::read(clip()).expect("the clip");
    let media = MediaServer::start(move |_| file_answer(&bytes));
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let tls = TlsServer::start(&authority, &["127.0.0.1"], &media.address);
    let file = folder.path().join("authority.pem");
    fs::write(&file, &authority.pem).expect("a file");
    let host = format!("127.0.0.1:{}", tls.port);
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("a projector");
    let options = ["-m", files.model.to_str().expect("UTF-8"), "--mmproj", mmproj.to_str().expect("UTF-8")];
    let options = [&options[..], &["-n", "1", "--remote-host", &host]].concat();
    for (name, status) in [("SSL_CERT_FILE", 200), ("SHARPV_TEST_NOTHING", 400)] {
        let server = Server::start(&options, &[(name, file.to_str().expect("UTF-8"))]);
        let reply = server.post(&about(&format!("https://{host}/clip.mp4"), "What?"));
        assert_eq!(reply.status, status, "{name}: {}", reply.text);
        assert_eq!(reply.text.contains("certificate"), status == 400, "{}", reply.text);
    }
}

#[test]
fn fetching_has_limits_of_size_and_time() {
    let media = MediaServer::start(|path| match path {
        // The head of an image, and a lot after it.
        "/half" => file_answer(&[b"\x89PNG\r\n\x1a\n".to_vec(), vec![0; 700 << 10]].concat()),
        "/claimed" => b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        // More than the limit, in a body without a length.
        "/endless" => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![0; 3 << 20]].concat(),
        "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\ns3cret".to_vec(),
        "/broken" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n\0\0\0\x20ftyp".to_vec(),
        "/nonsense" => b"s3cret\r\n\r\n".to_vec(),
        _ => {
            std::thread::sleep(std::time::Duration::from_secs(20));
            Vec::new()
        }
    });
    let server = Server::tiny(&["--remote-host", &media.address, "--max-download", "1M", "--download-timeout", "2"]);
    // Each is small enough, but not both together.
    let half = |_| json!({ "type": "video_url", "video_url": media.url("/half") });
    let content = [1, 2].map(half);
    let both = server.post(&json!({ "messages": [{ "role": "user", "content": content }] }));
    assert_eq!((both.status, both.error().as_str()), (413, "too_large"), "{}", both.text);
    for (path, status, code) in [
        ("/claimed", 413, "too_large"),
        ("/endless", 413, "too_large"),
        ("/missing", 400, "invalid_media"),
        ("/broken", 400, "invalid_media"),
        ("/nonsense", 400, "invalid_media"),
        ("/silent", 400, "invalid_media"),
    ] {
        let start = std::time::Instant::now();
        let reply = server.post(&about(&media.url(path), "What?"));
        assert_eq!((reply.status, reply.error().as_str()), (status, code), "{path}: {}", reply.text);
        assert!(!reply.text.contains("s3cret"), "{}", reply.text);
        assert!(start.elapsed().as_secs() < 15, "{path}");
    }
}
