// @ts-check
/** Pictures made small enough to travel inside of JSON, as data URLs. */

export const THUMBNAIL_SIDE = 512;
const DESCRIPTION_SIDE = 384;
const DESCRIPTION_BYTES = 60_000;

/**
 * @param {CanvasImageSource & {width: any, height: any}} source
 * @param {number} side px, at most, of the longer one; smaller pictures stay as large as they are
 * @param {string} [background] under what is transparent
 * @returns {HTMLCanvasElement}
 */
function scaled(source, side, background) {
  const width = Number(/** @type {any} */ (source).naturalWidth ?? source.width);
  const height = Number(/** @type {any} */ (source).naturalHeight ?? source.height);
  if (!(width > 0 && height > 0)) throw new Error("the picture is empty");
  const factor = Math.min(1, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * factor));
  canvas.height = Math.max(1, Math.round(height * factor));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser has no canvas");
  context.imageSmoothingQuality = "high";
  if (background) {
    context.fillStyle = background;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * @param {CanvasImageSource & {width: any, height: any}} source
 * @returns {string} a PNG of at most 512 px; throws where the picture is another site's
 */
export function thumbnail(source) {
  return scaled(source, THUMBNAIL_SIDE).toDataURL("image/png");
}

/** @param {string} address of this origin @returns {Promise<string>} */
export async function thumbnailOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return thumbnail(image);
}

/**
 * A chosen file as a small picture: a PNG if that is small, else a JPEG.
 * @param {File} file
 * @returns {Promise<{url: string, ending: "png" | "jpg"}>} rejects where the browser cannot read it
 */
export async function descriptionPicture(file) {
  const source = await createImageBitmap(file);
  try {
    const png = scaled(source, DESCRIPTION_SIDE).toDataURL("image/png");
    if (png.length * 0.75 <= DESCRIPTION_BYTES) return { url: png, ending: "png" };
    return { url: scaled(source, DESCRIPTION_SIDE, "#fff").toDataURL("image/jpeg", 0.85), ending: "jpg" };
  } finally {
    source.close();
  }
}
