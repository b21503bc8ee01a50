"""Writes tokens/tokens.json: reference token ids of the real FLUX.1 vocabularies for hard strings.

    make_tokens.py [--tokenizers DIR]    DIR holds tokenizer/ and tokenizer_2/ (default: tokens/, the committed copies)
"""
import argparse
import json
import os
import random
import unicodedata

from transformers import CLIPTokenizer, T5Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008" \
         "\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"

PLAIN = """a cat
A photo of an astronaut riding a horse on Mars, 4k, highly detailed
a slice of pizza on a blue background
The quick brown fox jumps over the lazy dog.
an oil painting of a lighthouse at dusk; in the style of J. M. W. Turner
photo of a woman holding a sign that says "HELLO, WORLD!" (neon lights)
portrait, 85mm f/1.4, ISO 100, 1/200s --ar 16:9 --v 5.2
(masterpiece:1.2), [bad hands::0.5], {cat|dog}, <lora:style_v2:0.8>
cyberpunk city street, rain, reflections, volumetric light, trending on artstation
A. B. C. D. e.g. i.e. etc... U.S.A.
antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis
x
X
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
the the the the
camelCase PascalCase snake_case kebab-case SCREAMING_CASE dot.case
https://example.com/path?q=1&b=%20#frag user.name+tag@example.org
C:\\Users\\me\\file.txt /usr/local/bin ~/x ./y ../z
int main(void) { return 0; } // comment /* x */ #include <stdio.h>
SELECT * FROM t WHERE a='b' AND c<>"d";
e = mc^2; x_1 + y_2 >= 3/4 * 5 % 6 ~ 7 | 8 & 9""".split("\n")

NUMBERS = ["0", "7", "42", "1234567890", "3.14159", "1,000,000", "1 000 000", "-5", "+5", "1e-10", "0x1F", "50%", "$9.99",
           "€20", "12:34:56", "2024-02-29", "1st 2nd 3rd", "½ ¼ ¾ ⅓ ⅞", "x² y³ zⁿ H₂O", "①②③ ⑩ ⑴ ⒈ ➊", "ⅠⅡⅢⅣ ⅷ Ⅻ", "٠١٢٣٤", "०१२३",
           "１２３４", "𝟏𝟐𝟑 𝟘𝟙", "一二三四", "〇", "12abc34", "a1b2c3", "8k 4K uhd", "100mm", "1/2", "⅟", "㉈", "൧൨൩"]

PUNCTUATION = ["!", "!!", "!!!!!!!!!!!!!!!!!!!!!!!!!!!!", "...", "…", ". . .", ",,,", "?!?!", "-", "--", "---", "–", "—", "―", "_", "__",
               "@#$%^&*()", "[]{}<>", "\\", "|", "||", "~`", "\"quoted\"", "'single'", "“curly” ‘quotes’", "«guillemets»", "„low“",
               "«a»b", "*bold* _it_ ~~no~~ `code`", "a/b\\c|d", "a.b.c", "a,b,c", "a;b:c", "#hash @at", "100%!", "<>", "<|", "|>",
               "<||>", ">_<", ":-) :( ;P xD <3", "¯\\_(ツ)_/¯", "(╯°□°)╯︵ ┻━┻", "• bullet ◦ ‣ ▪", "→ ← ↑ ↓ ⇒ ⟶", "± × ÷ ≠ ≤ ≥ ≈ ∞ √ ∑ ∫ ∂ ∇",
               "©®™ ° § ¶ † ‡", "№ ℃ ℉ Å Ω K", "a'b", "''", "'", "' '", "`´'", "a!b?c", "!a", "a!", "!a!", "._.", "~~~"]

CONTRACTIONS = ["don't", "DON'T", "Don'T", "it's", "IT'S", "I'm", "I'M", "we're they've I'll he'd", "WE'RE THEY'VE I'LL HE'D", "'s", "'S",
                "'t", "'re", "'ve", "'m", "'ll", "'d", "'sad", "'tis", "'reality", "rock'n'roll", "'90s", "cats' toys", "a's's's", "''s",
                "'s's", "’s don’t", "it 's", "it' s", "o'clock", "l'été d'Artagnan", "1's", "!'s", "é's", "'ſ", "Ma'am'll"]

SPECIAL = ["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "a<|endoftext|>b", "a <|endoftext|> b",
           "a<|startoftext|>b", "<|endoftext|><|endoftext|>", "<|startoftext|><|endoftext|>", " <|endoftext|> ", "<|endoftext", "endoftext|>",
           "<| endoftext |>", "<|endoftext|>!!", "<|ENDOFTEXT|>!!", "!<|ENDOFTEXT|>!", "!!<|STARTOFTEXT|>!!", "<|<|endoftext|>|>",
           "x<|STARTOFTEXT|>y<|ENDOFTEXT|>z", "＜|endoftext|＞", "<|endoftext|>\n<|startoftext|>",
           "</s>", "<s>", "<pad>", "<unk>", "</S>", "<PAD>", "a</s>b", "a </s> b", "</s></s>", "</s> </s>", " </s>", "</s> ", "\n</s>\t",
           "a<pad>b", "<pad><pad>", "a <unk> b", "a<unk>b", "</ s>", "< /s>", "<//s>", "<extra_id_0>", "<extra_id_99>", "<extra_id_100>",
           "<extra_id_00>", "<extra_id_1>", "<extra_id_10>", "<extra_id_-1>", "<EXTRA_ID_0>", "<extra_id_>", "a<extra_id_5>b",
           "a <extra_id_5> b", "The <extra_id_0> walks in <extra_id_1> park", "<extra_id_0><extra_id_1>", "<extra_id_1>1", "＜/s＞", "a＜pad＞b",
           "＜extra_id_5＞", "▁", "▁▁", "a▁b", "▁a", "a▁", "a ▁ b", "a▁▁b", "<0x0A>", "[PAD] [CLS] [MASK]", "<mask>", "<|im_start|>"]

HTML = ["&amp;", "&lt;b&gt;", "&quot;x&quot;", "&#39;", "&#x27;", "&nbsp;", "a&amp;amp;b", "<b>bold</b>", "<br/>", "<!-- c -->", "&copy; 2020",
        "Tom &amp; Jerry", "&eacute;", "&unknown;", "<p class=\"x\">y</p>", "&", "&&", "&;"]

SCRIPTS = ["日本語", "富士山と桜、浮世絵風", "ひらがな カタカナ 漢字", "ガギグ がぎぐ", "ｶﾞｷﾞ ﾊﾟ", "你好，世界！", "一只猫坐在窗台上。", "繁體中文測試", "한국어 문장입니다.", "각", "힣", "ㄱㄴㄷ",
           "Привет, мир!", "ПРИВЕТ", "Ёжик Йод", "Ελληνικά ΟΔΟΣ ΣΊΣΥΦΟΣ ς Σ", "ΑΣ", "ΑΣ Σ ΣΑ", "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ", "שלום עולם", "שָׁלוֹם",
           "हिन्दी क्षत्रिय", "বাংলা", "தமிழ்", "తెలుగు", "ไทย ภาษาไทย น้ำ", "ລາວ", "မြန်မာ", "ភាសាខ្មែរ", "བོད་", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն և ԵՒ", "አማርኛ",
           "ᏣᎳᎩ Ꭰ ꭰ", "ᐃᓄᒃᑎᑐᑦ", "ᠮᠣᠩᠭᠣᠯ", "𐐀𐐨 Deseret", "𒀀𒀁", "𓀀𓂀", "𝒜𝓫𝔠𝕕 𝖊𝗳", "𠀀𠮷 野家", "Tiếng Việt: phở bò, đặc biệt", "naïve café résumé", "Œuvre œuf ÆØÅ æøå",
           "straße STRASSE ẞ ß", "İstanbul ıI iİ", "Ğğ Şş Çç Öö Üü", "ș ț Ș Ț ş ţ", "Ǆ ǅ ǆ Ǉ ǈ ǉ", "ŉ ſ ẛ", "Ĳ ĳ Ŀ ŀ", "żółw ŻÓŁW", "Čeština řeřicha", "Þórr ðe", "ﷺ ﷽",
           "\u202eright to left\u202c", "abc\u200fאבג\u200e", "\u061cمثال", "Ȧ ȧ Ḁ ḁ", "Ⓐⓑ ⒜ 🄰 🅰", "㈱ ㍿ ㎏ ㏂ ㌔", "ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ", "ﬁne ﬂower oﬃce", "ﭏ ﬓ"]

FORMS = ["Ｈｅｌｌｏ，Ｗｏｒｌｄ！", "ＡＢＣ１２３", "（ａ）", "｀～", "￥ ￡ ￠", "ﾊﾛｰ", "＜ｂ＞", "Å Å A\u030a", "Ω Ω", "K K", "e\u0301 é", "E\u0301", "n\u0303 ñ", "c\u0327 ç",
         "a\u0323\u0301 ạ\u0301", "a\u0301\u0323", "e\u0302\u0301 ế", "o\u031b\u0323 ợ", "s\u0323\u0307 ṩ", "q\u0307\u0323", "\u0344", "a\u0344", "\u0340\u0341\u0343",
         "\u1100\u1161", "\u1100\u1161\u11a8", "가\u11a8", "か\u3099 が", "ハ\u309a", "\u0301", " \u0301", "a \u0301b", "Z\u0351\u036b\u0343a\u0300\u0301\u0302l\u0334g\u035co\u0361",
         "Ａ\u0301", "ﬁ\u0308", "①\u0301", "™\u0301", "ª\u0301", "½\u0301", "1\ufe0f\u20e3", "x\u20dd", "क\u093c क़", "\u0958", "i\u0307", "İ", "ı\u0307", "ſ\u0307 ẛ",
         "\u0149", "\u1e9b\u0323", "\u2126", "\u212a", "\ufb2a \ufb49", "\U0001d15e \U0001d1bb", "\ufa0e \uf900 \uf9ff", "\u2f00 \u2e80", "\u0cc6\u0cc2\u0cd5", "\u0dd9\u0dcf\u0dca",
         "\u0415\u0308 Ё", "\u0418\u0306 Й", "ό ό", "\u1fef \u1ffd", "ᾳ ᾼ ῼ", "\u0390 \u1fd3", "e\u200d\u0301", "\u200d\u0316", "\u200c\u0301a", "\u00ad\u0301", "\ufeff\u0301a"]

EMOJI = ["🙂", "😀😃😄", "👍🏽", "👩‍🚀", "👨‍👩‍👧‍👦", "👩🏿‍🤝‍👨🏻", "🏳️‍🌈", "🏴‍☠️", "🇫🇷", "🇯🇵🇺🇸🇩🇪", "🇦", "🇦🇧🇨", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️ ❤", "☺️ ☺︎", "✌🏻", "🫠🫶🏼", "a🙂b", "🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂",
         "😀text", "🦊 fox 🦊", "⌚⏰⏳", "☀️🌧️❄️", "♠♥♦♣", "⚙️🛠️", "🀄🃏", "ℹ️", "©️ ®️ ™️", "#️⃣ *️⃣ 0️⃣", "🤷🏾‍♀️", "👁️‍🗨️", "🧑‍💻", "🕵️", "🅰️🅱️", "㊗️"]

CONTROL = ["\x01", "a\x01b", "a\x07b", "a\x08b", "a\x1bb[0m", "\x7f", "a\x7fb", "a\x80b", "a\x9fb", "\x85", "a\x85b", "a\x8fb", "\xad", "so\xadft hy\xadphen", "\u200b", "a\u200bb",
           "a\u200cb", "a\u200db", "\u2060a\u2060", "\ufeffBOM", "a\ufeffb", "\ufffc \ufffd", "a\ufffdb", "\ufff9x\ufffa", "\ue000", "a\ue000b", "\uf8ff", "\U000f0000 \U0010fffd", "\u0378",
           "a\u0378b", "\U0001fffe \uffff", "a\uffffb", "\U000e0001\U000e0041", "a\U000e0100b", "\u180e", "a\u180eb", "\u061c", "\u2066a\u2069", "\u034f", "a\u034fb", "\u115f\u1160", "\u3164", "\uffa0",
           "\u17b4", "\u2061", "\U0001d173", "\x02\x03 \x04"]


def spaces():
    out = ["", " ", "  ", "      ", "\t", "\n", "\n\n\n", " \t\r\n ", " a", "a ", "  a  ", "a b", "a  b", "a   b", "a\tb", "a\nb", "a\r\nb", "\ta\n", "a \n b", "line one\nline two\n\nline four",
           "tab\tseparated\tvalues", "a\xa0b", "\xa0", "\xa0a\xa0", "a\u3000b", "\u3000", "a \xa0 b"]
    return out + [f"a{c}b" for c in SPACES] + ["x" + SPACES + "y", SPACES]


def long_strings():
    return ["a " * 400, "word " * 100, "x" * 1500, "cat, " * 76, "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 4, "漢字" * 150, "🙂" * 60, "1234567890" * 20, "!" * 300,
            "supercalifragilistic" * 12, " ".join(PLAIN[:10]), "tree " * 73, "tree " * 74, "tree " * 75, "tree " * 76, "tree " * 77, "don't " * 40, "\n".join(PLAIN)]


BLOCKS = [(0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x5D0, 0x5EA), (0x620, 0x64A), (0x64B, 0x652), (0x900, 0x94D),
          (0xE01, 0xE3A), (0x10D0, 0x10FF), (0x1100, 0x1112), (0x1161, 0x1175), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x208E), (0x20A0, 0x20BF), (0x2100, 0x218B),
          (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x3000, 0x303F), (0x3041, 0x30FF), (0x3200, 0x33FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFB00, 0xFB4F),
          (0xFE00, 0xFE0F), (0xFF01, 0xFFEE), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x20000, 0x20100)]


def fuzz():
    r = random.Random(2024)
    words = " ".join(PLAIN).split()
    any_char = lambda: chr(r.randint(*r.choice(BLOCKS)))
    out = ["".join(any_char() for _ in range(r.randint(1, 24))) for _ in range(60)]
    out += ["".join(chr(r.randint(*b)) for _ in range(12)) for b in BLOCKS]
    for _ in range(80):  # ordinary text with a few foreign characters and marks
        text = list(" ".join(r.choice(words) for _ in range(r.randint(2, 12))))
        for _ in range(r.randint(1, 5)):
            text.insert(r.randint(0, len(text)), r.choice([any_char(), chr(r.randint(0x300, 0x36F)), r.choice(SPACES), r.choice(SPECIAL)]))
        out.append("".join(text))
    for _ in range(40):  # case and punctuation
        w = "".join(r.choice([c.upper(), c, c]) for c in r.choice(PLAIN)[:40])
        out.append("".join(c + r.choice([""] * 6 + list("'’!.,-")) for c in w))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokenizers", default=os.path.join(HERE, "tokens"))
    a = p.parse_args()
    clip = CLIPTokenizer.from_pretrained(os.path.join(a.tokenizers, "tokenizer"))
    t5 = T5Tokenizer.from_pretrained(os.path.join(a.tokenizers, "tokenizer_2"))
    texts = spaces() + PLAIN + NUMBERS + PUNCTUATION + CONTRACTIONS + SPECIAL + HTML + SCRIPTS + FORMS + EMOJI + CONTROL
    texts += [unicodedata.normalize("NFD", s) for s in SCRIPTS] + long_strings() + fuzz()
    texts = list(dict.fromkeys(texts))
    with open(os.path.join(HERE, "tokens", "tokens.json"), "w") as f:
        f.write("[\n")
        for i, s in enumerate(texts):
            row = {"text": s, "clip": clip(s, truncation=True, max_length=77)["input_ids"], "t5": t5(s)["input_ids"]}
            f.write(json.dumps(row, separators=(",", ":")) + (",\n" if i + 1 < len(texts) else "\n"))
        f.write("]\n")
    print(len(texts), "strings")


if __name__ == "__main__":
    main()
