//! The things in the clips, which `smol` knows.

use super::scene::Sprite;
use image::imageops::FilterType;
use image::{ImageFormat, Rgba32FImage, imageops};
use twemoji_assets::png::PngTwemojiAsset;

/// Names and emoji of the things.
#[rustfmt::skip]
pub const THINGS: [(&str, &str); 75] = [
    ("dog", "🐶"), ("cat", "🐱"), ("horse", "🐴"), ("cow", "🐮"), ("pig", "🐷"), ("sheep", "🐑"), ("rabbit", "🐰"), ("elephant", "🐘"),
    ("monkey", "🐒"), ("bear", "🐻"), ("penguin", "🐧"), ("duck", "🦆"), ("owl", "🦉"), ("frog", "🐸"), ("turtle", "🐢"), ("snake", "🐍"),
    ("fish", "🐟"), ("whale", "🐳"), ("octopus", "🐙"), ("bee", "🐝"), ("butterfly", "🦋"), ("spider", "🕷"), ("giraffe", "🦒"),
    ("lion", "🦁"), ("apple", "🍎"), ("banana", "🍌"), ("grapes", "🍇"), ("watermelon", "🍉"), ("strawberry", "🍓"), ("pineapple", "🍍"),
    ("lemon", "🍋"), ("tomato", "🍅"), ("carrot", "🥕"), ("pizza", "🍕"), ("hamburger", "🍔"), ("cake", "🍰"), ("donut", "🍩"),
    ("egg", "🥚"), ("car", "🚗"), ("bus", "🚌"), ("train", "🚆"), ("airplane", "✈"), ("helicopter", "🚁"), ("rocket", "🚀"),
    ("ship", "🚢"), ("bicycle", "🚲"), ("truck", "🚚"), ("tractor", "🚜"), ("house", "🏠"), ("tent", "⛺"), ("umbrella", "☂"),
    ("soccer ball", "⚽"), ("basketball", "🏀"), ("guitar", "🎸"), ("camera", "📷"), ("television", "📺"), ("book", "📖"), ("key", "🔑"),
    ("bell", "🔔"), ("clock", "⏰"), ("crown", "👑"), ("hammer", "🔨"), ("scissors", "✂"), ("balloon", "🎈"), ("gift", "🎁"),
    ("rose", "🌹"), ("sunflower", "🌻"), ("cactus", "🌵"), ("tree", "🌲"), ("star", "⭐"), ("snowman", "☃"), ("fire", "🔥"),
    ("rainbow", "🌈"), ("chair", "🪑"), ("lock", "🔒"),
];

/// The image of a thing, `side` pixels wide and high, with colors premultiplied by opacity.
pub fn sprite(thing: &str, side: u32) -> Sprite {
    let emoji = THINGS.iter().find(|(name, _)| *name == thing).map_or("", |(_, emoji)| *emoji);
    let png: &[u8] = PngTwemojiAsset::from_emoji(emoji).unwrap_or_else(|| panic!("{thing}: no image of {emoji}"));
    let mut image: Rgba32FImage =
        image::load_from_memory_with_format(png, ImageFormat::Png).expect("Twemoji's images are PNGs").to_rgba32f();
    // Before resizing, so that transparent pixels do not bleed their color into neighbors.
    for image::Rgba([r, g, b, a]) in image.pixels_mut() {
        [r, g, b].into_iter().for_each(|color| *color *= *a);
    }
    imageops::resize(&image, side, side, FilterType::CatmullRom)
}
