"""The demo's data: Noto Color Emoji bitmaps on plain backgrounds, with captions.

A picture is one (emoji, colour) pair. Every emoji has exactly one colour that
is held out: its picture is never shown to any part of the model.
"""

import io
import random
import re
import unicodedata
from pathlib import Path

import numpy as np

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
HERE = Path(__file__).parent
SIZE = 128
EMOJI_WIDTH = 118  # leaves a rim of background on every side

COLOURS = {
    "red": (214, 48, 49), "orange": (243, 134, 48), "yellow": (250, 210, 60),
    "green": (46, 160, 84), "blue": (52, 110, 220), "purple": (142, 68, 190),
    "pink": (248, 150, 190), "brown": (121, 85, 62), "gray": (128, 132, 138),
    "white": (245, 245, 245),
}

# Unicode names, lower-cased. NAMES gives the three that read badly another name.
EMOJI = """
watch, alarm clock, hourglass, cloud, umbrella, snowman, hot beverage, shamrock,
anchor, gear, soccer ball, baseball, airplane, envelope, pencil, snowflake,
rainbow, volcano, crescent moon, full moon symbol, glowing star, hot dog, taco,
slice of pizza, chestnut, seedling, evergreen tree, palm tree, cactus, tulip,
rose, sunflower, four leaf clover, maple leaf, mushroom, tomato, aubergine,
grapes, watermelon, lemon, banana, pineapple, red apple, green apple, pear,
peach, cherries, strawberry, hamburger, bread, french fries, ice cream,
doughnut, cookie, lollipop, wine glass, beer mug, popcorn, birthday cake,
croissant, avocado, carrot, cheese wedge, ear of maize, hot pepper, broccoli,
pretzel, pancakes, christmas tree, balloon, jack-o-lantern, graduation cap,
top hat, guitar, trumpet, violin, accordion, trophy, basketball and hoop, kite,
rocket, helicopter, bus, taxi, automobile, tractor, sailboat, bicycle, tiger,
rabbit, cat, dragon, crocodile, whale, snail, snake, elephant, octopus, bug,
honeybee, lady beetle, tropical fish, turtle, baby chick, penguin, koala,
dolphin, frog face, panda face, pig face, fox face, lion face, unicorn face,
owl, crab, butterfly, flamingo, peacock, parrot, hedgehog, shark, ghost, skull,
crown, gem stone, electric light bulb, bomb, fire, droplet, key, lock, bell,
hammer, magnet, axe, compass, heavy black heart, blue heart, grinning face,
smiling face with sunglasses, thinking face, robot face, open book, camera,
television, candle, teddy bear, socks
"""
NAMES = {"heavy black heart": "red heart", "full moon symbol": "full moon",
         "jack-o-lantern": "pumpkin lantern"}
# Further names a person would type; trained like the first.
ALIASES = {"slice of pizza": ["pizza"], "electric light bulb": ["light bulb"],
           "hot beverage": ["coffee"], "automobile": ["car"], "soccer ball": ["football"]}
for _animal in ("frog", "panda", "pig", "fox", "lion", "unicorn", "robot"):
    ALIASES[_animal + " face"] = [_animal]

UNICODE_NAMES = [" ".join(n.split()) for n in EMOJI.split(",")]
EMOJI_NAMES = [NAMES.get(n, n) for n in UNICODE_NAMES]
COLOUR_NAMES = list(COLOURS)


def caption(name, colour, article=""):
    return f"{article}{name} on a {colour} background"


def article_for(name):
    return "an " if name[0] in "aeiou" else "a "


def all_pairs():
    """Every (emoji index, colour index), emoji-major: pair p = emoji * 10 + colour."""
    return [(e, c) for e in range(len(EMOJI_NAMES)) for c in range(len(COLOUR_NAMES))]


def choose_heldout(seed):
    """One held-out colour per emoji, the colours evenly used."""
    rng = random.Random(seed)
    count = len(EMOJI_NAMES)
    colours = [i % len(COLOUR_NAMES) for i in range(count)]
    pizza, blue = EMOJI_NAMES.index("slice of pizza"), COLOUR_NAMES.index("blue")
    while True:
        rng.shuffle(colours)
        if colours[pizza] != blue:  # the README's own prompt is a trained one
            return [(e, colours[e]) for e in range(count)]


def write_heldout(path, pairs):
    lines = [caption(EMOJI_NAMES[e], COLOUR_NAMES[c]) for e, c in pairs]
    Path(path).write_text("\n".join(lines) + "\n")


def read_heldout(path=HERE / "heldout.txt"):
    index = {caption(EMOJI_NAMES[e], COLOUR_NAMES[c]): (e, c) for e, c in all_pairs()}
    return [index[line] for line in Path(path).read_text().splitlines()]


def emoji_bitmaps(font=FONT):
    """uint8 [emoji, SIZE, SIZE, 4], straight alpha, centred."""
    from fontTools.ttLib import TTFont
    from PIL import Image

    ttf = TTFont(font)
    cmap, strike = ttf.getBestCmap(), ttf["CBDT"].strikeData[0]
    out = []
    for name in UNICODE_NAMES:
        glyph = strike[cmap[ord(unicodedata.lookup(name))]]
        glyph.ensureDecompiled()
        picture = Image.open(io.BytesIO(glyph.imageData)).convert("RGBA").convert("RGBa")
        height = round(picture.height * EMOJI_WIDTH / picture.width)
        picture = picture.resize((EMOJI_WIDTH, height), Image.LANCZOS).convert("RGBA")
        canvas = Image.new("RGBA", (SIZE, SIZE))
        canvas.paste(picture, ((SIZE - EMOJI_WIDTH) // 2, (SIZE - height) // 2))
        out.append(np.asarray(canvas))
    return np.stack(out)


def render(bitmaps, pairs):
    """uint8 [pair, SIZE, SIZE, 3]: the pictures themselves."""
    colours = np.array([COLOURS[c] for c in COLOUR_NAMES], np.float32)
    out = np.empty((len(pairs), SIZE, SIZE, 3), np.uint8)
    for i, (e, c) in enumerate(pairs):
        alpha = bitmaps[e, :, :, 3:].astype(np.float32) / 255
        out[i] = np.round(bitmaps[e, :, :, :3] * alpha + colours[c] * (1 - alpha))
    return out


def vocabulary():
    """Every word a caption can hold, sorted; capitals for those that can start it."""
    names = EMOJI_NAMES + [a for aliases in ALIASES.values() for a in aliases]
    text = " ".join(names + COLOUR_NAMES + ["a an on background"])
    words = set(text.split())
    assert all(re.fullmatch("[a-z]+", w) for w in words)
    first = {sentence_case(n.split()[0]) for n in names + ["a", "an"]}
    return sorted(words | first)


def sentence_case(text):
    return text[0].upper() + text[1:]


def filler(rng, known):
    """A word outside the vocabulary: the model learns to read past such words."""
    while True:
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))
        if word not in known:
            return word


def caption_variants(emoji, colour, count, rng, known, fits):
    """`count` captions of one pair; the first two are the plain ones."""
    name, hue = EMOJI_NAMES[emoji], COLOUR_NAMES[colour]
    out = [caption(name, hue), caption(name, hue, article_for(name))]
    while len(out) < count:
        title = rng.choice([name, *ALIASES.get(name, []), *ALIASES.get(name, [])])
        words = rng.choice(["", article_for(title)]) + title
        if rng.random() < 0.25:  # "a xy rose", "xy a rose"
            words = rng.choice([f"{filler(rng, known)} {words}",
                                f"a {filler(rng, known)} {title}"])
        text = caption(words, hue)
        if rng.random() < 0.2:
            text = sentence_case(text)
        if rng.random() < 0.1:
            text += "."
        if fits(text):
            out.append(text)
    return out
