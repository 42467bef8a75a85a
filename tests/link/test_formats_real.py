"""All real dictionaries of the shared collection: direction, hand-checked pairs, nothing leaks."""

import os
import pathlib

import pytest

from jaxlink.link.lexicon import Lexicon
from tests.link.test_formats import check_texts

ROOT = pathlib.Path(__file__).parents[2]
DICTIONARIES = (ROOT / os.environ.get('JAXLINK_SHARED_DATA', '../shared/data')) / 'dictionaries'
pytestmark = [
  pytest.mark.shared_data,
  pytest.mark.skipif(not DICTIONARIES.is_dir(), reason=f'{DICTIONARIES} is not there'),
]

# file, target, direction, share of pairs kept at least, pairs checked by hand
FILES = [
  ('apertium_dix/apertium-eu-en.eu-en.dix.gz', 'eu', 'inverted', 0.9, 'waterfall > ur-jauzi, thirteen > hamahiru, nowadays > gaur egun, device > aparatu'),
  ('dsl/en-hi-enwiktionary.dsl.dz', 'hi', 'forward', 0.9, 'war > युद्ध, tongue > जीभ, search > खोजना, firewood > लकड़ी'),
  ('dsl/en-id-enwiktionary.dsl.dz', 'id', 'forward', 0.85, 'no > tidak, garlic > bawang putih, midnight > tengah malam, burglar > pencuri'),
  ('dsl/en-vi-enwiktionary.dsl.dz', 'vi', 'forward', 0.89, 'fog > sương mù, stomach > dạ dày, their > của họ, sparrow > chim sẻ'),
  ('freedict_tei/eng-afr.tei.gz', 'af', 'forward', 0.9, 'vehicle > voertuig, daughter > dogter, stairs > trap, pumpkin > pampoen'),
  ('freedict_tei/eng-fra.tei.gz', 'fr', 'forward', 0.9, 'abseil > descendre en rappel, spool > bobine, fully > complètement'),
  ('freedict_tei/eng-swh.tei', 'sw', 'forward', 0.98, 'mountain > mlima, road > njia, throat > koo, begin > anza'),
  ('freedict_tei/swh-eng.tei', 'sw', 'inverted', 0.8, 'finger > kidole, umbrella > mwavuli, be sick > umwa, wheel > gurudumu'),
  ('freedict_tei/tur-eng.tei', 'tr', 'inverted', 0.95, 'soup > çorba, bed > yatak, girl > kız, knife > biçak'),
  ('gatitos_tsv/en_ak.tsv', 'ak', 'forward', 0.98, 'oil > ngo, outside > abɔnten'),
  ('gatitos_tsv/en_as.tsv', 'as', 'forward', 0.99, 'middle > মাজ, orphan > অনাথ'),
  ('gatitos_tsv/en_ay.tsv', 'ay', 'forward', 0.95, 'visit > tumpa, not now > janiw jichhaxa'),
  ('gatitos_tsv/en_bho.tsv', 'bho', 'forward', 0.99, 'cave > गुफा, noon > दुपहरिया'),
  ('gatitos_tsv/en_bm.tsv', 'bm', 'forward', 0.95, 'metal > nɛgɛ, village > dugu'),
  ('gatitos_tsv/en_br.tsv', 'br', 'forward', 0.95, 'our > hon, offer > kinnig'),
  ('gatitos_tsv/en_ckb.tsv', 'ckb', 'forward', 0.95, 'organization > ڕێکخراو, me too > هەروەها منیش'),
  ('gatitos_tsv/en_ee.tsv', 'ee', 'forward', 0.98, 'center > titina, it is > enye'),
  ('gatitos_tsv/en_es.tsv', 'es', 'forward', 0.95, 'while > mientras, pork > cerdo, got it > entiendo'),
  ('gatitos_tsv/en_fr.tsv', 'fr', 'forward', 0.9, 'heavy > lourd, play > jouer'),
  ('gatitos_tsv/en_gn.tsv', 'gn', 'forward', 0.95, 'million > sua, director > myakãhára'),
  ('gatitos_tsv/en_hi.tsv', 'hi', 'forward', 0.99, 'noon > दोपहर, given > दिया गया'),
  ('gatitos_tsv/en_ilo.tsv', 'ilo', 'forward', 0.95, 'joy > ragsak, part > paset'),
  ('gatitos_tsv/en_lg.tsv', 'lg', 'forward', 0.9, 'place > ekifo, plants > ebimera'),
  ('gatitos_tsv/en_ln.tsv', 'ln', 'forward', 0.95, 'wake > kolamuka, owner > nkolo'),
  ('gatitos_tsv/en_luo.tsv', 'luo', 'forward', 0.95, 'plate > san, back > chien'),
  ('gatitos_tsv/en_mai.tsv', 'mai', 'forward', 0.95, 'cave > गुफा, peace > शांति'),
  ('gatitos_tsv/en_nd.tsv', 'nd', 'forward', 0.95, 'letter > incwadi, present > isipho'),
  ('gatitos_tsv/en_om.tsv', 'om', 'forward', 0.98, 'miracle > dinqii, person > nama'),
  ('gatitos_tsv/en_pcm.tsv', 'pcm', 'forward', 0.5, 'what > wetin, victim > viktim'),
  ('gatitos_tsv/en_qu.tsv', 'qu', 'forward', 0.95, 'wood > kullu, wide > kinray'),
  ('gatitos_tsv/en_sa.tsv', 'sa', 'forward', 0.95, 'urban > नगरीय, nope > न'),
  ('gatitos_tsv/en_ti.tsv', 'ti', 'forward', 0.99, 'girl > ጓል, orange > ኣራንሺ'),
  ('gatitos_tsv/en_tn.tsv', 'tn', 'forward', 0.95, 'use > dirisa, organization > thulaganyo'),
  ('gatitos_tsv/en_wo.tsv', 'wo', 'forward', 0.95, 'office > biro, vehicle > woto'),
  ('indian_linealigned/dict.bn-en.bn', 'bn', 'inverted', 0.8, 'albert > আলবার্ট, literacy > সাক্ষরতা, weekly > সাপ্তাহিক'),
  ('indian_linealigned/dict.ta-en.en', 'ta', 'inverted', 0.7, 'language > மொழியாக, third > மூன்றாம், black mamba > கருப்பு மாம்பா'),
  ('indian_linealigned/dict.te-en.en', 'te', 'inverted', 0.7, 'papaya > బొప్పాయి, countries > దేశాలు, pendulum > లోలకము'),
  ('indian_linealigned/dict.ur-en.en', 'ur', 'inverted', 0.8, 'robbery > ڈکیتی, fate > مشیت, drum > طبلہ'),
  ('kaikki_jsonl/ar-en-extract.jsonl', 'ar', 'inverted', 0.7, 'foot > قدم, step > قدم'),
  ('kaikki_jsonl/en-de-extract.jsonl', 'de', 'forward', 0.45, 'choose > wählen, choose > aussuchen'),
  ('kaikki_jsonl/en-en-extract.jsonl', 'fr', 'forward', 0.9, 'bring > apporter, magical > magique'),
  ('kaikki_jsonl/en-es-extract.jsonl', 'es', 'forward', 0.95, 'fast > rápido, fast > entregado a los placeres'),
  ('kaikki_jsonl/en-ru-extract.jsonl', 'ru', 'forward', 0.95, 'read > читать, read > снимать показания'),
  ('kaikki_jsonl/fa-en-extract.jsonl', 'fa', 'inverted', 0.65, 'angel > ملک, persian > فارسی'),
  ('kaikki_jsonl/fi-en-extract.jsonl', 'fi', 'inverted', 0.6, 'head > pää, big > iso'),
  ('kaikki_jsonl/fr-en-extract.jsonl', 'fr', 'inverted', 0.7, 'take > prendre, bedroom > chambre, hotel room > chambre'),
  ('kaikki_jsonl/ja-en-extract.jsonl', 'ja', 'inverted', 0.75, 'raccoon dog > 狸, today > きょう'),
  ('kaikki_jsonl/ko-en-extract.jsonl', 'ko', 'inverted', 0.05, 'germany > 독일, read > 읽다'),
  ('kaikki_jsonl/zh-en-extract.jsonl', 'zh', 'inverted', 0.95, 'paddy field > 田, field > 田'),
  ('panlex_cosda/eng-urd.ur2.txt.gz', 'ur', 'forward', 0.85, 'book > کتاب, nose > ناک, nail polish > نیل پالش'),
  ('stardict/eus-eng.Basque.stardict.tar.gz', 'eu', 'inverted', 0.7, 'bridge > zubi, language > hizkuntza, thirteen > hamahiru'),
  ('stardict/hau-eng.Hausa.stardict.tar.gz', 'ha', 'inverted', 0.85, 'mosque > masallaci, body > jiki, wealth > arziki'),
  ('stardict/som-eng.Somali.stardict.tar.gz', 'so', 'inverted', 0.85, 'hunger > gaajo, rice > bariis, police officer > askari'),
  ('wechsel_tsv/eng-amh.amharic.tsv', 'am', 'forward', 0.98, 'friend > ጓደኛ, butterfly > ቢራቢሮ'),
  ('wechsel_tsv/eng-ara.arabic.tsv', 'ar', 'forward', 0.9, 'successor > خليفة, independent > مستقل'),
  ('wechsel_tsv/eng-ben.bengali.tsv', 'bn', 'forward', 0.9, 'war > যুদ্ধ, which > কোন'),
  ('wechsel_tsv/eng-deu.german.tsv.gz', 'de', 'forward', 0.9, 'free of charge > umsonst, warlord > Kriegsherr, squad > Kader'),
  ('wechsel_tsv/eng-eus.basque.tsv', 'eu', 'forward', 0.9, 'battle > borroka, potassium > potasio'),
  ('wechsel_tsv/eng-ewe.ewe.tsv', 'ee', 'forward', 0.95, 'blood > ʋu, woman > nyɔnu'),
  ('wechsel_tsv/eng-hat.haitian_creole.tsv', 'ht', 'forward', 0.95, 'king > wa, earth > tè'),
  ('wechsel_tsv/eng-hau.hausa.tsv', 'ha', 'forward', 0.95, 'eat > ci, white > sol'),
  ('wechsel_tsv/eng-hin.hindi.tsv', 'hi', 'forward', 0.95, 'elbow > कुहनी, month > महीना'),
  ('wechsel_tsv/eng-ind.indonesian.tsv', 'id', 'forward', 0.95, 'more > lebih, corpse > mayat'),
  ('wechsel_tsv/eng-kor.korean.tsv', 'ko', 'forward', 0.6, 'button > 단추, onion > 양파'),
  ('wechsel_tsv/eng-mar.marathi.tsv', 'mr', 'forward', 0.95, 'mother > आई, ghee > तूप'),
  ('wechsel_tsv/eng-msa.malay.tsv', 'ms', 'forward', 0.85, 'onion > bawang, skyscraper > pencakar langit'),
  ('wechsel_tsv/eng-sna.shona.tsv', 'sn', 'forward', 0.95, 'pig > nguruve, stone > ibwe'),
  ('wechsel_tsv/eng-som.somali.tsv', 'so', 'forward', 0.95, 'snow > baraf, night > habeen'),
  ('wechsel_tsv/eng-swa.swahili.tsv', 'sw', 'forward', 0.98, 'yes > ndiyo, buy > nunua, gaza strip > Ukanda wa Gaza'),
  ('wechsel_tsv/eng-tam.tamil.tsv', 'ta', 'forward', 0.95, 'he > அவன், equality > சமத்துவம்'),
  ('wechsel_tsv/eng-tel.telugu.tsv', 'te', 'forward', 0.95, 'curry > కర్రీ, east germany > తూర్పు జర్మనీ'),
  ('wechsel_tsv/eng-tha.thai.tsv', 'th', 'forward', 0.75, 'language > ภาษา, sea > ชลธี, journal > วารสาร'),
  ('wechsel_tsv/eng-tur.turkish.tsv', 'tr', 'forward', 0.9, 'eggplant > patlıcan, situation > durum, role > rol'),
  ('wechsel_tsv/eng-urd.urdu.tsv', 'ur', 'forward', 0.9, 'day > دن, movie > چلچتر'),
  ('wechsel_tsv/eng-vie.vietnamese.tsv', 'vi', 'forward', 0.6, 'lunar calendar > âm lịch, chide > rầy'),
  ('wechsel_tsv/eng-yor.yoruba.tsv', 'yo', 'forward', 0.95, 'bad > buburu, seven > meje'),
  ('wechsel_tsv/eng-zho.chinese.tsv.gz', 'zh', 'forward', 0.97, 'dog > 犬, hearing aid > 助聽器, horse > 馬'),
  ('wechsel_tsv/eng-zul.zulu.tsv', 'zu', 'forward', 0.98, 'garden > ingadi, table > itafula, above > phezulu'),
  ('wikt_ding/en-hi-enwiktionary.txt', 'hi', 'forward', 0.9, 'war > युद्ध, tongue > जीभ, search > खोजना, firewood > लकड़ी'),
  ('wikt_ding/en-id-enwiktionary.txt', 'id', 'forward', 0.85, 'no > tidak, garlic > bawang putih, midnight > tengah malam'),
  ('wikt_ding/en-vi-enwiktionary.txt', 'vi', 'forward', 0.89, 'fog > sương mù, see you later > hẹn gặp lại, speak > nói'),
  ('wikt_html_tsv/amh-eng.Amharic.tsv', 'am', 'inverted', 0.9, 'camel > ግመል, language > ቋንቋ, hair > ጸጉር, letter > ፖስታ'),
  ('wikt_html_tsv/eus-eng.Basque.tsv.gz', 'eu', 'inverted', 0.7, 'bridge > zubi, language > hizkuntza, thirteen > hamahiru'),
  ('wikt_html_tsv/hau-eng.Hausa.tsv', 'ha', 'inverted', 0.85, 'mosque > masallaci, body > jiki, wealth > arziki'),
  ('wikt_html_tsv/ind-eng.Indonesian.tsv.gz', 'id', 'inverted', 0.7, 'silk > sutra, grass > rumput, give > beri, older sister > ayunda'),
  ('wikt_html_tsv/som-eng.Somali.tsv', 'so', 'inverted', 0.85, 'hunger > gaajo, rice > bariis, police officer > askari'),
  ('wikt_html_tsv/yor-eng.Yoruba.tsv.gz', 'yo', 'inverted', 0.75, 'bad > buburu, whip > bilala, wednesday > Ọjọru, eight > mẹjọ'),
]  # fmt: skip
# Their only records are a pointer (Icelandic býr) and a sign (a Thai vowel shortener).
NO_PAIR = {'kaikki_jsonl/is-en-extract.jsonl', 'kaikki_jsonl/th-en-extract.jsonl'}


@pytest.mark.parametrize(
  ('name', 'target', 'direction', 'share', 'pairs'), FILES, ids=[row[0] for row in FILES]
)
def test_a_real_dictionary(name, target, direction, share, pairs):
  lexicon = Lexicon.load(DICTIONARIES / name, target=target)
  check_texts(lexicon)
  assert lexicon.direction == direction
  assert lexicon.counts['kept_pairs'] > share * lexicon.counts['pairs']
  for pair in pairs.split(', '):
    source, expected = pair.split(' > ')
    assert expected in lexicon.entries[source]


def test_every_dictionary_of_the_collection_is_in_the_table():
  held = {str(p.relative_to(DICTIONARIES)) for p in DICTIONARIES.rglob('*') if p.is_file()}
  other_halves = {name for name in held if name.startswith('indian_linealigned/')}
  no_dictionaries = {'gatitos_tsv/README.md', 'dsl/en-id-enwiktionary_info.txt'}
  assert held - other_halves - no_dictionaries - NO_PAIR == {row[0] for row in FILES} - other_halves


@pytest.mark.parametrize('name', sorted(NO_PAIR))
def test_a_dump_of_links_alone_has_no_pair(name):
  with pytest.raises(ValueError, match=r'no pair can replace a word \(.*pointers'):
    Lexicon.load(DICTIONARIES / name, target=name.split('/')[1][:2])


@pytest.mark.parametrize(
  ('name', 'pairs'),
  [
    ('wechsel_tsv/eng-tur.turkish.tsv', 11327),
    ('wechsel_tsv/eng-deu.german.tsv.gz', 60708),
    ('wechsel_tsv/eng-urd.urdu.tsv', 3710),
    ('panlex_cosda/eng-urd.ur2.txt.gz', 86692),
  ],
)
def test_every_line_of_a_list_is_a_pair(name, pairs):
  assert Lexicon.load(DICTIONARIES / name).counts['pairs'] == pairs
