//! `/frames`: shows the frames of a video, as images if the terminal can.

use crate::output;
use crate::screen::{Screen, Watch};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sharpv::chat::VideoInspection;
use sharpv::lab::inspect::strips;
use sharpv::runtime::CancelToken;
use sharpv::video::Frame;
use std::fmt::Write as _;
use std::io::{self, Cursor, IsTerminal};

/// Approximate terminal columns per frame.
const FRAME_COLUMNS: usize = 20;
/// Width of a terminal whose width is unknown.
const USUAL_COLUMNS: usize = 80;
/// Approximate width of a column in pixels.
const COLUMN_PIXELS: usize = 10;
/// kitty's limit on one piece of an image.
const KITTY_CHUNK: usize = 4096;

/// How a terminal shows images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Kitty,
    Iterm,
    Sixel,
    /// Two pixels per character, in 24-bit color, or in the 216 colors that every color terminal has.
    Blocks {
        all: bool,
    },
    /// It does not.
    Words,
}

/// Draws the frames of `video`, or lists them if the output cannot show images.
pub fn show(video: &VideoInspection, screen: &mut Screen, cancel: &CancelToken) -> anyhow::Result<()> {
    // Escape sequences are useless in a file.
    let is_terminal = io::stdout().is_terminal();
    let protocol = if is_terminal { protocol(|name| std::env::var(name).ok()) } else { Protocol::Words };
    screen.note(&video.info.path.display().to_string());
    if protocol == Protocol::Words {
        screen.note(&in_words(video));
        return Ok(());
    }
    let width = terminal_size::terminal_size().map_or(USUAL_COLUMNS, |(width, _)| usize::from(width.0)).max(2);
    let columns = (width / FRAME_COLUMNS).max(1);
    // One column stays empty, as a full line may wrap.
    let each = (width - 1) / columns;
    let pixels = if matches!(protocol, Protocol::Blocks { .. }) { each } else { each * COLUMN_PIXELS };
    let mut watch = Watch::new(screen, None, cancel);
    let rows = strips(video, columns, pixels as u32, cancel, &mut watch);
    screen.clear();
    let mut captions = captions(video).into_iter();
    for row in rows? {
        let n_columns = row.width as usize / (pixels / each).max(1);
        output::print(&(image(&row, protocol, n_columns)? + "\n"))?;
        let line: String = captions.by_ref().take(columns).map(|caption| format!("{caption:<each$}")).collect();
        output::print(&format!("{}\n", line.trim_end()))?;
    }
    Ok(())
}

/// What the terminal can show, from the environment. SHARPV_IMAGES overrides it.
fn protocol(variable: impl Fn(&str) -> Option<String>) -> Protocol {
    let text = |name: &str| variable(name).unwrap_or_default().to_lowercase();
    let is_set = |name: &str| !text(name).is_empty();
    let all = ["truecolor", "24bit"].contains(&text("COLORTERM").as_str());
    match text("SHARPV_IMAGES").as_str() {
        "kitty" => return Protocol::Kitty,
        "iterm" => return Protocol::Iterm,
        "sixel" => return Protocol::Sixel,
        "blocks" => return Protocol::Blocks { all },
        "off" => return Protocol::Words,
        _ => {}
    }
    let (term, program) = (text("TERM"), text("TERM_PROGRAM"));
    if term.is_empty() || term == "dumb" || is_set("NO_COLOR") {
        return Protocol::Words;
    }
    // Multiplexers pass on only the sequences that they know.
    if is_set("TMUX") || term.starts_with("screen") || term.starts_with("tmux") {
        return Protocol::Blocks { all };
    }
    if is_set("KITTY_WINDOW_ID") || term.contains("kitty") || term.contains("ghostty") || program == "ghostty" {
        Protocol::Kitty
    } else if ["iterm.app", "wezterm", "mintty"].contains(&program.as_str()) || text("LC_TERMINAL") == "iterm2" {
        Protocol::Iterm
    } else if ["foot", "mlterm", "yaft", "contour"].iter().any(|name| term.starts_with(name)) || term.contains("sixel")
    {
        Protocol::Sixel
    } else {
        Protocol::Blocks { all }
    }
}

/// The escape sequences that draw `row`, `columns` wide, and leave the cursor below it.
fn image(row: &Frame, protocol: Protocol, columns: usize) -> anyhow::Result<String> {
    Ok(match protocol {
        Protocol::Kitty => kitty(&png(row)?, columns),
        Protocol::Iterm => {
            let png = png(row)?;
            let (size, data) = (png.len(), STANDARD.encode(&png));
            format!("\x1b]1337;File=inline=1;size={size};width={columns};preserveAspectRatio=1:{data}\x07")
        }
        Protocol::Sixel => {
            let rgba: Vec<u8> = row.rgb.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
            icy_sixel::SixelImage::try_from_rgba(rgba, row.width as usize, row.height as usize)?.encode()?
        }
        Protocol::Blocks { all } => blocks(row, all),
        Protocol::Words => String::new(),
    })
}

fn kitty(png: &[u8], columns: usize) -> String {
    let data = STANDARD.encode(png);
    let n_chunks = data.len().div_ceil(KITTY_CHUNK);
    let mut text = String::new();
    for i in 0..n_chunks {
        let chunk = &data[i * KITTY_CHUNK..data.len().min((i + 1) * KITTY_CHUNK)];
        let more = u8::from(i + 1 < n_chunks);
        let head = if i == 0 { format!("a=T,f=100,q=2,c={columns},m={more}") } else { format!("m={more}") };
        let _ = write!(text, "\x1b_G{head};{chunk}\x1b\\");
    }
    text
}

/// Each character is two pixels: the foreground color above the background color.
fn blocks(row: &Frame, all: bool) -> String {
    let mut text = String::new();
    let bytes = row.width as usize * 3;
    let lines: Vec<&[u8]> = row.rgb.chunks_exact(bytes.max(1)).collect();
    for pair in lines.chunks(2) {
        if !text.is_empty() {
            text.push('\n');
        }
        for (x, upper) in pair[0].chunks_exact(3).enumerate() {
            let lower = pair.get(1).map_or(&[0, 0, 0][..], |line| &line[3 * x..3 * x + 3]);
            let _ = write!(text, "\x1b[38;{};48;{}m▀", color(upper, all), color(lower, all));
        }
        text.push_str("\x1b[0m");
    }
    text
}

/// A color as terminals take it: three numbers, or the nearest color of the 6×6×6 cube.
fn color(pixel: &[u8], all: bool) -> String {
    let [r, g, b] = [0, 1, 2].map(|c| u32::from(pixel[c]));
    if all {
        return format!("2;{r};{g};{b}");
    }
    // The steps of the cube are at 0, 95, 135, 175, 215 and 255.
    let step = |value: u32| match value {
        0..48 => 0,
        48..115 => 1,
        _ => (value - 35) / 40,
    };
    format!("5;{}", 16 + 36 * step(r) + 6 * step(g) + step(b))
}

fn png(row: &Frame) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let (color, format) = (image::ExtendedColorType::Rgb8, image::ImageFormat::Png);
    image::write_buffer_with_format(&mut bytes, &row.rgb, row.width, row.height, color, format)?;
    Ok(bytes.into_inner())
}

/// The caption below each frame.
fn captions(video: &VideoInspection) -> Vec<String> {
    let caption = |(time_s, kept, total): (f64, usize, usize)| format!("{time_s:.2} s {kept}/{total}");
    numbers(video).map(caption).collect()
}

fn in_words(video: &VideoInspection) -> String {
    let line =
        |(time_s, kept, total): (f64, usize, usize)| format!("{time_s:>9.2} s  {kept:>4} of {total} tokens kept");
    numbers(video).map(line).collect::<Vec<_>>().join("\n")
}

/// For each frame: its time, the number of kept tokens, and the number of all tokens.
fn numbers(video: &VideoInspection) -> impl Iterator<Item = (f64, usize, usize)> {
    let slices = video.slices.iter();
    slices.flat_map(|slice| slice.times_s.iter().map(|&time_s| (time_s, slice.kept.len(), slice.n_tokens)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Protocol {
        protocol(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn two_by_three() -> Frame {
        let rgb = (0..18).map(|i| i * 10).collect();
        Frame { width: 2, height: 3, rgb, time_s: 0.0 }
    }

    #[test]
    fn terminals_are_recognized_by_the_environment() {
        assert_eq!(of(&[("TERM", "xterm-kitty")]), Protocol::Kitty);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1")]), Protocol::Kitty);
        assert_eq!(of(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "iTerm.app")]), Protocol::Iterm);
        assert_eq!(of(&[("TERM", "foot")]), Protocol::Sixel);
        assert_eq!(of(&[("TERM", "xterm-256color")]), Protocol::Blocks { all: false });
        assert_eq!(of(&[("TERM", "xterm"), ("COLORTERM", "truecolor")]), Protocol::Blocks { all: true });
        assert_eq!(of(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]), Protocol::Blocks { all: false });
        assert_eq!(of(&[("TERM", "dumb")]), Protocol::Words);
        assert_eq!(of(&[("TERM", "xterm"), ("NO_COLOR", "1")]), Protocol::Words);
        assert_eq!(of(&[("TERM", "xterm"), ("SHARPV_IMAGES", "sixel")]), Protocol::Sixel);
    }

    #[test]
    fn an_image_is_what_each_protocol_asks_for() {
        let row = two_by_three();
        let kitty = image(&row, Protocol::Kitty, 7).unwrap();
        assert!(kitty.starts_with("\x1b_Ga=T,f=100,q=2,c=7,m=0;iVBORw0KGgo") && kitty.ends_with("\x1b\\"), "{kitty:?}");
        let iterm = image(&row, Protocol::Iterm, 7).unwrap();
        assert!(iterm.starts_with("\x1b]1337;File=inline=1;size=") && iterm.contains(";width=7;"), "{iterm:?}");
        let sixel = image(&row, Protocol::Sixel, 7).unwrap();
        assert!(sixel.starts_with("\x1bP") && sixel.ends_with("\x1b\\"), "{sixel:?}");
        let few = image(&row, Protocol::Blocks { all: false }, 7).unwrap();
        assert!(few.starts_with("\x1b[38;5;16;48;5;59m▀"), "{few:?}");
        let blocks = image(&row, Protocol::Blocks { all: true }, 7).unwrap();
        assert_eq!(blocks.matches('▀').count(), 4);
        assert_eq!(blocks.lines().count(), 2);
        assert!(blocks.starts_with("\x1b[38;2;0;10;20;48;2;60;70;80m▀"), "{blocks:?}");
    }

    #[test]
    fn a_large_image_goes_to_kitty_in_pieces() {
        let text = kitty(&vec![0; 9000], 10);
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert_eq!(pieces.len(), 3);
        assert!(
            pieces[0].contains("m=1;") && pieces[1].starts_with("\x1b_Gm=1;") && pieces[2].starts_with("\x1b_Gm=0;")
        );
        assert!(pieces.iter().all(|piece| piece.split_once(';').is_some_and(|(_, data)| data.len() <= KITTY_CHUNK)));
    }
}
