// How a text differs from another, word by word.
(() => {
  const CELLS = 250000; // largest table of word pairs for which differences are computed

  // Return where the words, numbers and marks of `text` stand, as [start, end].
  function words(text) {
    const word = /\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu; // 2.5 is one
    return [...text.matchAll(word)].map((match) => [
      match.index,
      match.index + match[0].length,
    ]);
  }

  // Return {added: [[start, end]…] in `after`, removed: [[place in `after`, text]…]}, by the longest
  // common subsequence of words. Texts too long for that are compared at both ends only.
  function difference(before, after) {
    const a = words(before);
    const b = words(after);
    const left = a.map(([start, end]) => before.slice(start, end));
    const right = b.map(([start, end]) => after.slice(start, end));
    let head = 0;
    while (head < a.length && head < b.length && left[head] === right[head]) head++;
    let tail = 0;
    while (
      tail < a.length - head &&
      tail < b.length - head &&
      left[a.length - 1 - tail] === right[b.length - 1 - tail]
    )
      tail++;
    const kept = joined(left.slice(head, a.length - tail), right.slice(head, b.length - tail));
    const steps = [...kept.map(([i, j]) => [i + head, j + head]), [a.length - tail, b.length - tail]];
    const added = [];
    const removed = [];
    let [i, j] = [head, head];
    for (const [nextI, nextJ] of steps) {
      if (nextI > i) {
        const place = j > 0 ? b[j - 1][1] : 0;
        removed.push([place, before.slice(a[i][0], a[nextI - 1][1])]);
      }
      if (nextJ > j) added.push([b[j][0], b[nextJ - 1][1]]);
      [i, j] = [nextI + 1, nextJ + 1];
    }
    return { added, removed };
  }

  // Return the pairs of places of words that both lists have, in their order. A mark alone between
  // two changes is no pair: a comma kept would only cut a changed sentence in pieces.
  function joined(left, right) {
    const pairs = common(left, right);
    const beside = ([i, j], [nextI, nextJ]) => nextI === i + 1 && nextJ === j + 1;
    return pairs.filter(
      (pair, at) =>
        /[\p{L}\p{N}]/u.test(left[pair[0]]) ||
        beside(pairs[at - 1] || [-1, -1], pair) ||
        beside(pair, pairs[at + 1] || [left.length, right.length]),
    );
  }

  // Return the pairs of places of a longest common subsequence of two lists of words.
  function common(left, right) {
    const columns = right.length + 1;
    if (left.length * right.length === 0 || left.length * right.length > CELLS) return [];
    const longest = new Uint16Array((left.length + 1) * columns);
    for (let i = left.length - 1; i >= 0; i--)
      for (let j = right.length - 1; j >= 0; j--)
        longest[i * columns + j] =
          left[i] === right[j]
            ? longest[(i + 1) * columns + j + 1] + 1
            : Math.max(longest[(i + 1) * columns + j], longest[i * columns + j + 1]);
    const pairs = [];
    for (let i = 0, j = 0; i < left.length && j < right.length; ) {
      if (left[i] === right[j]) pairs.push([i++, j++]);
      else if (longest[(i + 1) * columns + j] >= longest[i * columns + j + 1]) i++;
      else j++;
    }
    return pairs;
  }

  radquant.difference = difference;
})();
