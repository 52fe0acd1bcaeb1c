/** Numbers as text. */

const MINUS = "−";

/**
 * A signed number of logits.
 * @param {number} value
 * @param {number} [digits]
 */
export function formatSigned(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/**
 * A logit: with its sign only where it is negative.
 * @param {number} value
 * @param {number} [digits]
 */
export function formatLogit(value, digits = 3) {
  return formatSigned(value, digits).replace("+", "");
}

/**
 * A probability in percent; never rounded to certainty.
 * @param {number} probability
 */
export function formatPercent(probability) {
  const percent = 100 * probability;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  return `${percent.toFixed(1)} %`;
}

/**
 * A share in whole percent.
 * @param {number} share
 */
export function formatShare(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * A tiny relative error.
 * @param {number} error
 */
export function formatError(error) {
  if (error === 0) return "0";
  return error.toExponential(0).replace("e-", "e" + MINUS);
}

/**
 * A range of pixels, with as many digits as it needs.
 * @param {number} start
 * @param {number} length
 */
export function formatSpan(start, length) {
  return `${formatPixel(start)} to ${formatPixel(start + length)}`;
}

/**
 * A length or place in pixels.
 * @param {number} value
 */
export function formatPixel(value) {
  return String(Number(value.toFixed(1)));
}
