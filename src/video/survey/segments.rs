//! A video as segments of similar images.

use super::thumbnail::Thumbnail;

/// Segments of a video, found with a variant of Ward's method (J. H. Ward, 1963) that merges only neighbors in time.
///
/// In Ward's method, merging segments of `n` and `m` images with the means `a` and `b` costs `n·m/(n+m) · |a − b|²`:
/// the increase of the squared distances of all images from the mean of their segment. The cheapest merge comes first,
/// so an image that differs much stays alone. Here the cost is `w(n', m')·d(a, b) + w(n, m)·`[`NOISE`], with
/// `w(n, m) = n·m/(n+m)`:
///
/// - `n'` and `m'` are `n` and `m`, capped at [`LONG`]. Without the cap, a small change of light over thousands of
///   images would outweigh an event of a few seconds.
/// - `d` is [`Thumbnail::distance`], which weighs a strong change of a few blocks more than a weak change of all.
/// - Among images that differ only by noise, the distance between means falls as segments grow, so one segment would
///   swallow all others. The term with [`NOISE`] is not capped: among similar images, it merges short segments first.
#[derive(Debug, Clone)]
pub(crate) struct Segments<T> {
    parts: Vec<Segment<T>>,
    /// The cost of merging each segment with the next.
    costs: Vec<f64>,
    /// The most segments.
    max: usize,
}

/// The squared distance of noise: 576 values that each differ by 0.004, one step of 8 bits.
const NOISE: f64 = 576.0 * 0.004 * 0.004;

/// The cap on the lengths of segments, in images.
const LONG: f64 = 8.0;

/// The weight of merging segments of `n` and `m` images.
fn weight(n: f64, m: f64) -> f64 {
    n * m / (n + m)
}

#[derive(Debug, Clone)]
struct Segment<T> {
    /// The number of images.
    n: f64,
    mean: Thumbnail,
    /// The image that represents the segment, and its item.
    typical: Thumbnail,
    item: T,
}

impl<T> Segment<T> {
    fn cost(&self, next: &Self) -> f64 {
        let change = weight(self.n.min(LONG), next.n.min(LONG)) * self.mean.distance(&next.mean);
        change + weight(self.n, next.n) * NOISE
    }

    /// Merges both. Keeps the typical image that is nearer to the mean, or the earlier one if both are equally near.
    fn with(self, next: Self) -> Self {
        let mean = self.mean.mean(self.n, &next.mean, next.n);
        let n = self.n + next.n;
        let is_earlier = self.typical.distance(&mean) <= next.typical.distance(&mean);
        let Self { typical, item, .. } = if is_earlier { self } else { next };
        Self { n, mean, typical, item }
    }
}

impl<T> Segments<T> {
    /// No segments yet. There will never be more than `max`, which is at least 1.
    pub fn new(max: usize) -> Self {
        Self { parts: Vec::new(), costs: Vec::new(), max: max.max(1) }
    }

    /// Adds an image, later than all before, with its item.
    pub fn push(&mut self, item: T, image: Thumbnail) {
        let segment = Segment { n: 1.0, mean: image.clone(), typical: image, item };
        self.costs.extend(self.parts.last().map(|last| last.cost(&segment)));
        self.parts.push(segment);
        self.reduce(self.max);
    }

    /// The item of each segment's typical image, in order of time.
    pub fn items(&self) -> impl ExactSizeIterator<Item = &T> {
        self.parts.iter().map(|part| &part.item)
    }

    /// Merges neighbors until at most `max` segments are left.
    fn reduce(&mut self, max: usize) {
        while self.parts.len() > max {
            let cheapest = self.costs.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
            let Some((i, _)) = cheapest else { return };
            let next = self.parts.remove(i + 1);
            self.costs.remove(i);
            let merged = self.parts.remove(i).with(next);
            if let Some(before) = i.checked_sub(1) {
                self.costs[before] = self.parts[before].cost(&merged);
            }
            if let Some(behind) = self.parts.get(i) {
                self.costs[i] = merged.cost(behind);
            }
            self.parts.insert(i, merged);
        }
    }
}

impl Segments<f64> {
    /// The times, ascending, of the typical images of `n` segments, or of all if there are fewer.
    pub fn moments(&self, n: usize) -> Vec<f64> {
        let mut fewer = self.clone();
        fewer.reduce(n.max(1));
        fewer.items().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::Frame;

    /// A grey image, with or without a white square in the corner.
    fn image(grey: u8, square: bool) -> Thumbnail {
        let pixel = |i: u32| if square && i % 32 < 4 && i / 32 < 4 { 255 } else { grey };
        let rgb = (0..32 * 24).flat_map(|i| [pixel(i); 3]).collect();
        Thumbnail::of(&Frame { width: 32, height: 24, rgb, time_s: 0.0 })
    }

    fn segments(max: usize, images: impl IntoIterator<Item = Thumbnail>) -> Segments<f64> {
        let mut segments = Segments::new(max);
        images.into_iter().enumerate().for_each(|(i, image)| segments.push(i as f64, image));
        segments
    }

    #[test]
    fn what_is_seen_once_is_found() {
        let hour = || (0..3600).map(|i| image(100 + (i / 100 % 2) as u8, (1800..1804).contains(&i)));
        let moments = segments(4096, hour()).moments(16);
        assert_eq!(moments.len(), 16);
        assert!(moments.iter().any(|time| (1800.0..1804.0).contains(time)), "{moments:?}");
        // Also if neighbors are merged early.
        let early = segments(64, hour()).moments(16);
        assert!(early.iter().any(|time| (1800.0..1804.0).contains(time)), "{early:?}");
    }

    #[test]
    fn what_is_seen_once_is_found_although_the_light_changes_slowly() {
        let light = |i: u32| 60 + (i.min(7200 - i) / 36) as u8;
        let hours = (0..7200).map(|i| image(light(i), (1000..1005).contains(&i)));
        let moments = segments(4096, hours).moments(6);
        assert!(moments.iter().any(|time| (1000.0..1005.0).contains(time)), "{moments:?}");
    }

    #[test]
    fn each_scene_has_its_frame() {
        let scenes = [3, 50, 2, 30, 1, 14];
        let images = scenes.iter().enumerate().flat_map(|(i, &n)| (0..n).map(move |_| image(40 * i as u8, false)));
        let moments = segments(4096, images).moments(scenes.len());
        let ends: Vec<usize> = scenes
            .iter()
            .scan(0, |end, n| {
                *end += n;
                Some(*end)
            })
            .collect();
        let scene = |time: &f64| ends.partition_point(|&end| end as f64 <= *time);
        assert_eq!(moments.iter().map(scene).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_never_changes_is_covered() {
        // A little noise, so that no two images are the same.
        let noise = |i: u64| {
            let pixel = |k: u64| {
                let mixed = (i * 576 + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                100 + ((mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 62) as u8
            };
            Thumbnail::of(&Frame { width: 16, height: 12, rgb: (0..576).map(pixel).collect(), time_s: 0.0 })
        };
        let moments = segments(4096, (0..1000).map(noise)).moments(10);
        let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap < 400.0), "{moments:?}");
        assert!(moments[0] < 300.0 && moments[9] > 700.0, "{moments:?}");
    }

    #[test]
    fn fewer_images_than_are_wanted_are_all_taken() {
        assert_eq!(segments(10, [image(1, false), image(2, false)]).moments(5), [0.0, 1.0]);
        assert!(segments(10, []).moments(5).is_empty());
        assert_eq!(segments(10, (0..20).map(|i| image(i, false))).moments(0).len(), 1);
    }
}
