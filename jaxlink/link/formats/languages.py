"""Codes, names and scripts of languages: what a dictionary's header and letters say about it.

In: a code of ISO 639-1 or 639-3 ('sw', 'swh'), an English name ('Swahili'), or a title that holds
two of them ('Swahili-English FreeDict Dictionary', 'eu-en'). Out: one code for each language, and
the scripts that it is written in.

Easy to get wrong: a language that is missing here is no error. Nothing is claimed about it, so a
list of it is neither refused nor turned round for its letters.
"""

import functools

import regex

from jaxlink.link import casing

# code of ISO 639-1 if there is one, further codes, names; grouped by script. A language with two
# scripts stands twice. Hanja and Chu Nom are left out: modern Korean and Vietnamese text has none.
_TABLE = {
  'Latin': """
    aa aar Afar, af afr Afrikaans, ak aka fat Akan, gsw Alemannic German, an arg Aragonese,
    ast Asturian, ay aym ayr Aymara, az aze azj Azerbaijani, bm bam Bambara, br bre Breton,
    bs bos Bosnian, ca cat Catalan, ceb Cebuano, co cos Corsican, cs ces cze Czech,
    cy cym wel Welsh, da dan Danish, de deu ger German, ee ewe Ewe, en eng English,
    eo epo Esperanto, es spa Spanish, et est ekk Estonian, eu eus baq Basque, ff ful fuv Fula,
    fi fin Finnish, fj fij Fijian, fo fao Faroese, fon Fon, fr fra fre French,
    fy fry Western Frisian, ga gle Irish, gd gla Scottish Gaelic, gl glg Galician, gn grn Guarani,
    ha hau Hausa, haw Hawaiian, hmn Hmong, hr hrv Croatian, ht hat Haitian Creole,
    hu hun Hungarian, id ind Indonesian, ig ibo Igbo, ilo Ilocano, is isl ice Icelandic,
    it ita Italian, jv jav Javanese, kab Kabyle, kam Kamba, kg kon Kongo, ki kik Kikuyu,
    kl kal Greenlandic, kri Krio, ku kur kmr Kurdish, la lat Latin, lb ltz Luxembourgish,
    lg lug Luganda, li lim Limburgish, ln lin Lingala, lt lit Lithuanian, luo Luo, lus Mizo,
    lv lav lvs Latvian, mg mlg plt Malagasy, mi mri mao Maori, mos Mossi, ms msa may zsm zlm Malay,
    mt mlt Maltese, nb nob Norwegian Bokmål, nd nde Northern Ndebele, nl nld dut Dutch,
    nn nno Norwegian Nynorsk, no nor Norwegian, nr nbl Southern Ndebele, nso Northern Sotho,
    ny nya Chichewa, oc oci Occitan, om orm gaz Oromo, pap Papiamento, pcm Nigerian Pidgin,
    pl pol Polish, pt por Portuguese, qu que quy quz Quechua, rm roh Romansh, rn run Rundi,
    ro ron rum Romanian, rw kin Kinyarwanda, sc srd Sardinian, sg sag Sango, sk slk slo Slovak,
    sl slv Slovene, sm smo Samoan, sn sna Shona, so som Somali, sq sqi alb als Albanian,
    sr srp Serbian, ss ssw Swazi, st sot Southern Sotho, su sun Sundanese, sv swe Swedish,
    sw swa swh Swahili, szl Silesian, tet Tetum, tk tuk Turkmen, tl tgl fil Tagalog, tn tsn Tswana,
    to ton Tongan, tpi Tok Pisin, tr tur Turkish, ts tso Tsonga, tum Tumbuka, tw twi Twi,
    umb Umbundu, uz uzb uzn Uzbek, ve ven Venda, vi vie Vietnamese, war Waray, wo wol Wolof,
    xh xho Xhosa, yo yor Yoruba, zu zul Zulu""",
  'Cyrillic': """
    ab abk Abkhaz, av ava Avar, ba bak Bashkir, be bel Belarusian, bg bul Bulgarian,
    ce che Chechen, cv chv Chuvash, kk kaz Kazakh, ky kir Kyrgyz, mk mkd mac Macedonian,
    mn mon khk Mongolian, os oss Ossetian, ru rus Russian, sah Yakut, sr srp Serbian,
    tg tgk Tajik, tt tat Tatar, udm Udmurt, uk ukr Ukrainian""",
  'Arabic': """
    ar ara arb Arabic, arz Egyptian Arabic, ary Moroccan Arabic, ckb Central Kurdish,
    fa fas per pes Persian, kk kaz Kazakh, ks kas Kashmiri, pa pan Punjabi,
    ps pus pbt Pashto, sd snd Sindhi, ug uig Uyghur, ur urd Urdu, yo yor Yoruba, ha hau Hausa,
    ms msa Malay""",
  'Devanagari': """
    awa Awadhi, bho Bhojpuri, doi Dogri, hi hin Hindi, hne Chhattisgarhi, gom Konkani,
    ks kas Kashmiri, mag Magahi, mai Maithili, mr mar Marathi, ne nep npi Nepali,
    new Newari, sa san Sanskrit, sd snd Sindhi""",
  'Bengali': 'as asm Assamese, bn ben Bengali, mni Manipuri',
  'Ethiopic': 'am amh Amharic, ti tir Tigrinya',
  'Hebrew': 'he heb Hebrew, yi yid Yiddish',
  'Han': 'ja jpn Japanese, yue Cantonese, zh zho chi cmn Chinese',
  'Hiragana': 'ja jpn Japanese',
  'Katakana': 'ja jpn Japanese',
  'Bopomofo': 'zh zho Chinese',
  'Hangul': 'ko kor Korean',
  'Greek': 'el ell gre Greek',
  'Armenian': 'hy hye arm Armenian',
  'Georgian': 'ka kat geo Georgian',
  'Gujarati': 'gu guj Gujarati',
  'Gurmukhi': 'pa pan Punjabi',
  'Kannada': 'kn kan Kannada',
  'Khmer': 'km khm Khmer',
  'Lao': 'lo lao Lao',
  'Malayalam': 'ml mal Malayalam',
  'Meetei_Mayek': 'mni Manipuri',
  'Myanmar': 'my mya bur Burmese, shn Shan',
  'Ol_Chiki': 'sat Santali',
  'Oriya': 'or ori ory Odia',
  'Sinhala': 'si sin Sinhala',
  'Tamil': 'ta tam Tamil',
  'Telugu': 'te tel Telugu',
  'Thaana': 'dv div Dhivehi',
  'Thai': 'th tha Thai',
  'Tibetan': 'bo bod tib Tibetan, dz dzo Dzongkha',
  'Tifinagh': 'ber zgh Tamazight',
}

_CODES: dict[str, str] = {}  # any code or lower-case name -> the first code of its row
_SCRIPTS: dict[str, tuple[str, ...]] = {}
_NAMES: dict[str, str] = {}
for _script, _rows in _TABLE.items():
  for _row in _rows.split(','):
    _words = _row.split()
    _codes = [word for word in _words if word.islower()]
    _name = ' '.join(word for word in _words if not word.islower())
    for _key in (*_codes, _name.lower()):
      _CODES.setdefault(_key, _codes[0])
    _NAMES.setdefault(_codes[0], _name)
    _SCRIPTS[_codes[0]] = (*_SCRIPTS.get(_codes[0], ()), _script)
_CODES |= {'mandarin': 'zh', 'chinese mandarin': 'zh'}

_PAIR = regex.compile(
  r"(?<![\p{L}'])(\p{Lu}[\p{L}]+(?: \p{Lu}\p{L}+)?)[-–—](\p{Lu}\p{L}+(?: \p{Lu}\p{L}+)?)"
)
_CODE_PAIR = regex.compile(r'(?<![\p{L}\d])([a-z]{2,3})[-_]([a-z]{2,3})(?![\p{L}\d])')


def code(language: str) -> str:
  """Returns one code for a language: ISO 639-1 if it has one; '' stays '', the unknown unchanged."""
  language = language.strip().lower()
  return _CODES.get(language, language)


def same(one: str, other: str) -> bool:
  """Whether two codes are of one language, script and region aside.

  >>> same('tur', 'tr-TR')
  True
  """
  return code(casing.base_language(one)) == code(casing.base_language(other))


def is_known(language: str) -> bool:
  """Tells whether a code or name is in the table."""
  return language.strip().lower() in _CODES


def codes() -> tuple[str, ...]:
  """Returns the codes of the table, one for each language."""
  return tuple(_NAMES)


def name(language: str) -> str:
  """Returns a language as errors show it: "Swahili ('sw')", or its code alone."""
  language = code(language)
  return f'{_NAMES[language]} ({language!r})' if language in _NAMES else repr(language)


def scripts(language: str) -> tuple[str, ...]:
  """Returns the Unicode scripts of a language; empty if the language is not in the table."""
  return _SCRIPTS.get(code(language), ())


def all_scripts() -> tuple[str, ...]:
  """Returns every script of the table."""
  return tuple(_TABLE)


@functools.cache
def letters(language: str) -> regex.Pattern | None:
  """Returns a pattern for a letter of a language's scripts; None if the language is unknown."""
  classes = ''.join(rf'\p{{{script}}}' for script in scripts(language))
  return regex.compile(f'[{classes}]') if classes else None


def pair_of(title: str) -> tuple[str, str]:
  """Finds two languages in a title or file name, as names or as codes; ('', '') if there are none.

  >>> pair_of('Basque-English Wiktionary dictionary (eu-en)')
  ('eu', 'en')
  """
  for pattern in (_PAIR, _CODE_PAIR):
    for match in pattern.finditer(title, overlapped=True):
      left, right = match.groups()
      # A name can be followed by a word of the title: 'English-Swahili FreeDict'.
      left, right = (
        [text for text in (side, side.split(' ')[edge]) if is_known(text)]
        for side, edge in ((left, -1), (right, 0))
      )
      if left and right:
        return code(left[0]), code(right[0])
  return '', ''
