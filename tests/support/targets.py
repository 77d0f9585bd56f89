"""Sizes of what is pressed on a page: at least 24 CSS pixels each way (WCAG 2.2, 2.5.8)."""

from playwright.sync_api import Page

# A link within a sentence is as high as its line. A box is pressed by its label as well.
_SMALL = """() => {
  const SELECTOR = "a[href], button, summary, select, textarea, input:not([type=hidden]), [role=tab]";
  const isInSentence = (element) => {
    if (getComputedStyle(element).display !== "inline") return false;
    const words = (node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim().length > 1;
    for (let box = element.parentElement; box; box = box.parentElement) {
      if ([...box.childNodes].some(words)) return true;
      if (getComputedStyle(box).display !== "inline") return false;
    }
    return false;
  };
  const found = [];
  for (const element of document.querySelectorAll(SELECTOR)) {
    if (!element.checkVisibility({ visibilityProperty: true }) || element.disabled || isInSentence(element)) continue;
    if (element.closest("[data-roving]")) continue;
    const boxes = [element, ...(element.labels ?? [])].flatMap((each) => [...each.getClientRects()]);
    const [width, height] = ["width", "height"].map((side) => Math.max(0, ...boxes.map((box) => box[side])));
    if (Math.min(width, height) <= 1) continue; // only for screen readers, or shown once it has the focus
    if (width < 23.5 || height < 23.5) {
      const name = element.getAttribute("aria-label") || element.innerText || element.name || element.id;
      const size = `${width.toFixed(0)}x${height.toFixed(0)}`;
      found.push(`${element.tagName.toLowerCase()} "${name.trim().slice(0, 40)}" ${size}`);
    }
  }
  return found;
}"""


def small_targets(page: Page) -> list[str]:
    """Elements too small to press on the current page, one line each: element, name, size."""
    found: list[str] = page.evaluate(_SMALL)
    return [f"{page.url}: {each}" for each in found]
