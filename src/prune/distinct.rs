//! Which tokens of video that does not end can be spared: those that look like others that stay.

use super::vector::{distance_square, inverse_norm};
use rayon::prelude::*;

/// Tokens that are held, oldest first, and how much each looks like its nearest.
///
/// The worth of a token is `‖x‖ · (1 − cos(x, y))`, where `y` is the token most like it of all others that are held,
/// newer ones too. The token of least worth leaves first, of equals the older; then the worth of those is taken anew
/// that had it for their nearest. So of two look-alikes one stays, and is worth more alone.
///
/// After InfiniPot-V (arXiv 2506.15745), which holds a cache within a limit by value norm and by how much keys resemble
/// those of the same place, without attention scores. Here both are taken of the embeddings that enter the model, once,
/// and not of keys and values in each layer: these are in the cache, in its type and turned by their positions, and
/// reading them is copying all of it. `1 − cos` is computed as half the squared distance of unit vectors, which is
/// exactly 0 for equals. A token without a direction is worth nothing.
///
/// Holds a copy of the embeddings, as unit vectors. A push of `m` tokens to `n` takes `m·n` distances, and as many
/// again when they leave, about.
#[derive(Debug, Default)]
pub struct DistinctTokens {
    n_embd: usize,
    /// `[n_tokens × n_embd]`; zero for a token without a direction.
    units: Vec<f32>,
    looks: Vec<Look>,
}

/// What is known of a token.
#[derive(Debug, Clone, Copy)]
struct Look {
    norm: f64,
    /// The token most like it, and the squared distance of their unit vectors.
    nearest: usize,
    distance: f64,
}

impl Look {
    fn alone(norm: f64) -> Self {
        // As far as unit vectors can be.
        Self { norm, nearest: usize::MAX, distance: 4.0 }
    }

    fn meet(&mut self, other: usize, distance: f64) {
        if distance < self.distance {
            (self.nearest, self.distance) = (other, distance);
        }
    }

    fn worth(&self) -> f64 {
        self.norm * self.distance / 2.0
    }
}

impl DistinctTokens {
    /// No tokens yet, of `n_embd` floats each.
    pub fn new(n_embd: usize) -> Self {
        Self { n_embd: n_embd.max(1), ..Self::default() }
    }

    /// Tokens that are held.
    pub fn len(&self) -> usize {
        self.looks.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.looks.is_empty()
    }

    /// Bytes that the copy of the embeddings takes.
    pub fn bytes(&self) -> usize {
        size_of::<f32>() * self.units.capacity()
    }

    /// Adds tokens behind those that are held: `rows` is `[tokens × n_embd]`.
    pub fn push(&mut self, rows: &[f32]) {
        let first = self.len();
        for row in rows.chunks_exact(self.n_embd) {
            let inverse = inverse_norm(row).unwrap_or(0.0);
            self.units.extend(row.iter().map(|x| x * inverse));
            let norm = if inverse > 0.0 { f64::from(1.0 / inverse) } else { 0.0 };
            self.looks.push(Look::alone(norm));
        }
        let distances = |new: usize| -> Vec<f64> {
            (0..new).map(|other| distance_square(self.unit(new), self.unit(other))).collect()
        };
        let distances: Vec<Vec<f64>> = (first..self.len()).into_par_iter().map(distances).collect();
        for (new, distances) in (first..).zip(&distances) {
            for (other, &distance) in distances.iter().enumerate() {
                self.looks[new].meet(other, distance);
                self.looks[other].meet(new, distance);
            }
        }
    }

    /// Lets tokens leave until at most `most` are held, or only the `newest`. Returns which left, ascending, as they
    /// were counted before.
    pub fn thin(&mut self, most: usize, newest: usize) -> Vec<usize> {
        let n_old = self.len().saturating_sub(newest);
        let mut stays = vec![true; self.len()];
        for _ in most..self.len() {
            let old = (0..n_old).filter(|&token| stays[token]);
            let by_worth = |a: &usize, b: &usize| self.looks[*a].worth().total_cmp(&self.looks[*b].worth());
            let Some(least) = old.min_by(by_worth) else { break };
            stays[least] = false;
            self.look_again(&stays);
        }
        self.compact(&stays)
    }

    /// Lets these tokens leave.
    pub fn remove(&mut self, tokens: impl IntoIterator<Item = usize>) {
        let mut stays = vec![true; self.len()];
        tokens.into_iter().for_each(|token| stays[token] = false);
        self.look_again(&stays);
        self.compact(&stays);
    }

    fn unit(&self, token: usize) -> &[f32] {
        &self.units[token * self.n_embd..][..self.n_embd]
    }

    /// Finds the nearest anew of tokens that lost it.
    fn look_again(&mut self, stays: &[bool]) {
        let is_lost = |&token: &usize| {
            let nearest = self.looks[token].nearest;
            stays[token] && nearest != usize::MAX && !stays[nearest]
        };
        let lost: Vec<usize> = (0..self.len()).filter(is_lost).collect();
        let look = |&token: &usize| {
            let mut look = Look::alone(self.looks[token].norm);
            for other in (0..self.len()).filter(|&other| stays[other] && other != token) {
                look.meet(other, distance_square(self.unit(token), self.unit(other)));
            }
            look
        };
        let looks: Vec<Look> = lost.par_iter().map(look).collect();
        lost.into_iter().zip(looks).for_each(|(token, look)| self.looks[token] = look);
    }

    /// Forgets the tokens that do not stay, and returns them.
    fn compact(&mut self, stays: &[bool]) -> Vec<usize> {
        let gone: Vec<usize> = (0..stays.len()).filter(|&token| !stays[token]).collect();
        if gone.is_empty() {
            return gone;
        }
        let mut to = 0;
        let mut places = vec![usize::MAX; stays.len()];
        for token in (0..stays.len()).filter(|&token| stays[token]) {
            let n_embd = self.n_embd;
            self.units.copy_within(token * n_embd..(token + 1) * n_embd, to * n_embd);
            self.looks[to] = self.looks[token];
            places[token] = to;
            to += 1;
        }
        self.units.truncate(to * self.n_embd);
        self.looks.truncate(to);
        for look in self.looks.iter_mut().filter(|look| look.nearest != usize::MAX) {
            look.nearest = places[look.nearest];
        }
        gone
    }
}
