//! The stories of each category of clips.

use super::backdrop::{COLORS, Checks, paint};
use super::questions::{self, DIRECTIONS, Question};
use super::random::Random;
use super::scene::{Actor, Noise, Place, Scene, Shot, Way, stay};
use super::things::{THINGS, sprite};
use super::{FRAMES, SIDE};

/// A scene and its questions.
pub struct Story {
    pub scene: Scene,
    pub questions: Vec<Question>,
}

const EDGE: i32 = SIDE as i32;

/// The story of the `round`th clip of a category.
pub fn tell(category: &str, round: u64, random: &mut Random) -> Story {
    match category {
        "move" => moving(random),
        "enter" => entering(random),
        "order" => in_order(random),
        "still" => still(random),
        "two" => two(random),
        "cut" => cut(random),
        "pan" => match round % 3 {
            0 => camera_follows(random),
            1 => camera_passes_two(random),
            _ => camera_leaves_one_for_another(random),
        },
        "noise" => {
            let story = [still, moving, two, in_order][(round % 4) as usize](random);
            in_the_dark(story, random)
        }
        unknown => panic!("{unknown}: no such category"),
    }
}

/// Two different things and the sides of their images, in pixels.
fn cast(random: &mut Random) -> ([&'static str; 2], [i32; 2]) {
    let first = random.below(THINGS.len());
    let second = (first + 1 + random.below(THINGS.len() - 1)) % THINGS.len();
    ([first, second].map(|i| THINGS[i].0), [(); 2].map(|()| random.between(48, 111)))
}

fn actor(thing: &str, side: i32, way: Way, from: usize) -> Actor {
    Actor { sprite: sprite(thing, side as u32), way, from }
}

pub fn anywhere(side: i32, random: &mut Random) -> Place {
    [random.between(0, EDGE - side), random.between(0, EDGE - side)]
}

fn plain(color: usize, random: &mut Random) -> image::RgbImage {
    paint(color, (SIDE, SIDE), Checks::Sometimes, random)
}

/// A frame between a third and two thirds of the clip.
fn middle(random: &mut Random) -> usize {
    random.between(FRAMES as i32 * 35 / 100, FRAMES as i32 * 65 / 100) as usize
}

/// A path from near one edge of the frame to near the opposite one, in the direction with this number.
pub fn across(direction: usize, side: i32, random: &mut Random) -> Way {
    let span = EDGE - side;
    let ends = [span * random.between(0, 15) / 100, span * random.between(85, 100) / 100];
    let other = span * random.between(5, 95) / 100;
    let step = DIRECTIONS[direction].1;
    let ends = if step[0] + step[1] > 0 { ends } else { [ends[1], ends[0]] };
    ends.map(|end| if step[0] != 0 { [end, other] } else { [other, end] })
}

/// One thing on each half of the frame.
fn side_by_side(sides: [i32; 2], random: &mut Random) -> [Place; 2] {
    let half = EDGE / 2;
    let [first, second] = sides;
    [
        [random.between(0, half - first), random.between(0, EDGE - first)],
        [half + random.between(0, half - second), random.between(0, EDGE - second)],
    ]
}

/// Like [`side_by_side`], with either thing on the left.
fn apart([first, second]: [i32; 2], random: &mut Random) -> [Place; 2] {
    if random.one_in(2) {
        return side_by_side([first, second], random);
    }
    let [second, first] = side_by_side([second, first], random);
    [first, second]
}

fn still(random: &mut Random) -> Story {
    let ([thing, _], [side, _]) = cast(random);
    let color = random.below(COLORS.len());
    let backdrop = plain(color, random);
    let actors = vec![actor(thing, side, stay(anywhere(side, random)), 0)];
    let mut questions = vec![questions::what(&[thing]), questions::color(color)];
    questions.extend(questions::is_there(&[thing], random));
    questions.push(questions::which_way(thing, None));
    Story { scene: Scene::of(backdrop, stay([0, 0]), actors), questions }
}

fn moving(random: &mut Random) -> Story {
    let ([thing, _], [side, _]) = cast(random);
    let color = random.below(COLORS.len());
    let direction = random.below(DIRECTIONS.len());
    let backdrop = plain(color, random);
    let actors = vec![actor(thing, side, across(direction, side, random), 0)];
    let name = DIRECTIONS[direction].0;
    let mut questions = vec![questions::what(&[thing]), questions::color(color)];
    questions.extend(questions::is_there(&[thing], random));
    questions.push(questions::which_way(thing, Some(name)));
    Story { scene: Scene::of(backdrop, stay([0, 0]), actors), questions }
}

fn two(random: &mut Random) -> Story {
    let (things, sides) = cast(random);
    let color = random.below(COLORS.len());
    let backdrop = plain(color, random);
    let places = side_by_side(sides, random);
    let actors = (0..2).map(|i| actor(things[i], sides[i], stay(places[i]), 0)).collect();
    let mut questions = vec![questions::what(&things), questions::color(color)];
    questions.extend(questions::is_there(&things, random));
    questions.extend(questions::sides(things));
    Story { scene: Scene::of(backdrop, stay([0, 0]), actors), questions }
}

/// A second thing joins the first.
fn entering(random: &mut Random) -> Story {
    let (things, sides) = cast(random);
    let color = random.below(COLORS.len());
    let backdrop = plain(color, random);
    let from = [0, middle(random)];
    let places = apart(sides, random);
    let actors = (0..2).map(|i| actor(things[i], sides[i], stay(places[i]), from[i])).collect();
    let mut questions = vec![questions::what(&things), questions::color(color)];
    questions.extend(questions::is_there(&things, random));
    questions.push(questions::last(things));
    Story { scene: Scene::of(backdrop, stay([0, 0]), actors), questions }
}

/// A second thing replaces the first.
fn in_order(random: &mut Random) -> Story {
    let (things, sides) = cast(random);
    let color = random.below(COLORS.len());
    let backdrop = plain(color, random);
    let first = middle(random);
    let shot = |i: usize, frames, backdrop, random: &mut Random| {
        let actors = vec![actor(things[i], sides[i], stay(anywhere(sides[i], random)), 0)];
        Shot { frames, backdrop, camera: stay([0, 0]), actors }
    };
    let shots = vec![shot(0, first, backdrop.clone(), random), shot(1, FRAMES - first, backdrop, random)];
    let mut questions = vec![questions::what(&things), questions::color(color)];
    questions.extend(questions::is_there(&things, random));
    questions.extend([questions::first(things), questions::last(things)]);
    Story { scene: Scene { shots, noise: None }, questions }
}

/// Two shots with different things on different backgrounds, still or moving.
fn cut(random: &mut Random) -> Story {
    let (things, sides) = cast(random);
    let first = random.below(COLORS.len());
    let colors = [first, (first + 1 + random.below(COLORS.len() - 1)) % COLORS.len()];
    let split = middle(random);
    let frames = [split, FRAMES - split];
    let shots = (0..2).map(|i| {
        let backdrop = plain(colors[i], random);
        let way = match random.one_in(2) {
            true => across(random.below(DIRECTIONS.len()), sides[i], random),
            false => stay(anywhere(sides[i], random)),
        };
        Shot { frames: frames[i], backdrop, camera: stay([0, 0]), actors: vec![actor(things[i], sides[i], way, 0)] }
    });
    let scene = Scene { shots: shots.collect(), noise: None };
    let mut questions = vec![questions::what(&things)];
    questions.extend(questions::is_there(&things, random));
    questions.extend([questions::first(things), questions::last(things)]);
    Story { scene, questions }
}

/// The path of a camera over `distance` pixels in the direction with this number, and the size of the required
/// backdrop.
fn pan(direction: usize, distance: i32) -> (Way, (u32, u32)) {
    let step = DIRECTIONS[direction].1;
    let far = step.map(|axis| axis.abs() * distance);
    let way = if step[0] + step[1] > 0 { [[0, 0], far] } else { [far, [0, 0]] };
    (way, (SIDE + far[0] as u32, SIDE + far[1] as u32))
}

/// A thing moves, and the camera follows more slowly, so the backdrop moves the other way.
fn camera_follows(random: &mut Random) -> Story {
    let ([thing, _], [side, _]) = cast(random);
    let color = random.below(COLORS.len());
    let direction = random.below(DIRECTIONS.len());
    let (camera, size) = pan(direction, random.between(60, 140));
    let backdrop = paint(color, size, Checks::Fine, random);
    let seen = across(direction, side, random);
    let way = [0, 1].map(|end| [0, 1].map(|axis| seen[end][axis] + camera[end][axis]));
    let mut questions = vec![questions::what(&[thing]), questions::color(color)];
    questions.extend(questions::is_there(&[thing], random));
    questions.push(questions::which_way(thing, Some(DIRECTIONS[direction].0)));
    Story { scene: Scene::of(backdrop, camera, vec![actor(thing, side, way, 0)]), questions }
}

/// Two things side by side stay in view while the camera moves.
fn camera_passes_two(random: &mut Random) -> Story {
    let (things, _) = cast(random);
    let sides = [(); 2].map(|()| random.between(48, 80));
    let color = random.below(COLORS.len());
    let distance = random.between(32, 60);
    let (camera, size) = pan(random.below(DIRECTIONS.len()), distance);
    let backdrop = paint(color, size, Checks::Fine, random);
    // The area that both the first and the last frame show starts at the far end of the camera's path.
    let begin = [size.0, size.1].map(|length| (length - SIDE) as i32);
    let half = (EDGE - begin[0]) / 2;
    let places = [0, 1].map(|i| {
        let left = begin[0] + half * i as i32 + random.between(0, half - sides[i]);
        [left, random.between(begin[1], EDGE - sides[i])]
    });
    let actors = (0..2).map(|i| actor(things[i], sides[i], stay(places[i]), 0)).collect();
    let mut questions = vec![questions::what(&things), questions::color(color)];
    questions.extend(questions::is_there(&things, random));
    questions.extend(questions::sides(things));
    Story { scene: Scene::of(backdrop, camera, actors), questions }
}

/// The camera moves from one thing to another, a frame's width or height away.
fn camera_leaves_one_for_another(random: &mut Random) -> Story {
    let (things, sides) = cast(random);
    let color = random.below(COLORS.len());
    let (camera, size) = pan(random.below(DIRECTIONS.len()), EDGE);
    let backdrop = paint(color, size, Checks::Fine, random);
    let actors = (0..2).map(|i| {
        let place = anywhere(sides[i], random);
        actor(things[i], sides[i], stay([0, 1].map(|axis| camera[i][axis] + place[axis])), 0)
    });
    let scene = Scene::of(backdrop, camera, actors.collect());
    let mut questions = vec![questions::what(&things), questions::color(color)];
    questions.extend(questions::is_there(&things, random));
    questions.extend([questions::first(things), questions::last(things)]);
    Story { scene, questions }
}

/// The same with a camera in the dark.
fn in_the_dark(mut story: Story, random: &mut Random) -> Story {
    let noise = Noise { seed: random.bits(), strength: random.between(6, 18), flicker: random.between(0, 10) };
    story.scene.noise = Some(noise);
    story
}
