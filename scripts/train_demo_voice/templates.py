"""Sentences made by rule, of the kinds that prose holds few of: numbers, times, lists, names, questions, commands,
dialogue, single words, and strings of words in no order (so that rare sequences of phones are heard too).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

Words = tuple[Sequence[str], Sequence[float]]
"""A language's words and how often each is drawn."""

_FILLERS: dict[str, dict[str, str]] = {
    "en": {
        "who": "Anna|Mister Brown|the doctor|my sister|our neighbour|Peter|Doctor Lee|the captain|Maria|James|Olivia|"
        "the old man|Emily|Professor Grant|my uncle|Daniel|the girl next door|Thomas|Sophie|a young teacher",
        "place": "London|the station|Paris|New York|the market|the library|Tokyo|the harbour|the village|the airport|"
        "Canada|the school|Beijing|the north gate|our kitchen|the second floor|Boston|the garden|Berlin",
        "thing": "a red umbrella|fresh bread|two tickets|the blue book|warm soup|a wooden chair|some green apples|"
        "the last letter|a small dog|an old map|three keys|a bottle of milk|the yellow coat|a heavy box|new shoes",
        "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|tomorrow|tonight|next week|this morning",
        "month": "January|February|March|April|May|June|July|August|September|October|November|December",
        "verb": "find|carry|remember|describe|choose|bring|paint|repair|borrow|forget|follow|answer for",
    },
    "zh": {
        "who": "小王|李老师|我妈妈|张医生|邻居家的孩子|爷爷|他的同学|陈先生|王小姐|我们的队长|那位年轻人|姐姐|"
        "刘经理|她的朋友",
        "place": "北京|上海|车站|学校|图书馆|市场|公园|医院|山上|海边|办公室|广州|三楼|河边|机场|南京|厨房里|村口",
        "thing": "一把雨伞|两张票|新鲜的面包|一本旧书|热汤|红苹果|最后一封信|一只小狗|地图|三把钥匙|一瓶牛奶|"
        "黄色的外套|新鞋|茶叶",
        "day": "星期一|星期二|星期三|星期四|星期五|星期六|星期天|明天|今晚|下个星期|今天早上|后天|昨天下午",
        "month": "一月|二月|三月|四月|五月|六月|七月|八月|九月|十月|十一月|十二月",
        "verb": "找到|带来|记住|介绍|选择|打开|修理|借走|忘记|喜欢|看见|买下",
    },
    "ja": {
        "who": "田中さん|先生|母|山田さん|隣の子ども|おじいさん|友だち|鈴木さん|船長|若い医者|妹|部長|佐藤さん|彼女",
        "place": "東京|駅|学校|図書館|市場|公園|病院|山の上|海辺|会社|大阪|三階|川のそば|空港|京都|台所|村",
        "thing": "赤い傘|切符|新しいパン|古い本|温かいスープ|りんご|最後の手紙|小さな犬|地図|鍵|牛乳|黄色い上着|"
        "新しい靴|お茶",
        "day": "月曜日|火曜日|水曜日|木曜日|金曜日|土曜日|日曜日|明日|今晩|来週|今朝|あさって|昨日",
        "month": "一月|二月|三月|四月|五月|六月|七月|八月|九月|十月|十一月|十二月",
        "verb": "見つけた|持ってきた|覚えている|選んだ|開けた|直した|借りた|忘れた|描いた|買った|待っている",
    },
}
_PATTERNS: dict[str, str] = {
    "en": "{who} bought {n} apples for {n} dollars.|The train leaves at {hour}:{minute}.|Where is {who}?|"
    "Can {who} {verb} {thing}?|I was born on {month} {dom}, {year}.|We need {thing}, {thing}, and {thing}.|"
    "{who} lives at {n} Park Street.|Call me at {hour} on {day}.|Please {verb} {thing}!|"
    "How many people came to {place} in {year}?|{who} said, {verb} it before {day}.|No, {who} is in {place}.|"
    "Yes, of course.|The answer is {big}.|It costs {n}.{digit} percent more than in {year}.|"
    "Is it {thing}, or {thing}?|Why did {who} go to {place} without {thing}?|Good morning, {who}.|"
    "On {day}, {who} went to {place}, and {who} stayed at home.|{n}, {n}, {n}, and {n}.|"
    "What time is it in {place}?|Chapter {n}.|Turn left, then right, then walk {n} meters.|"
    "There are {big} reasons, but {who} knows only {n}.|Do not {verb} {thing}, I asked {who} to {verb} it on {day}.|"
    "{who} and {who} met {who} in {place}.|Have you ever seen {thing} in {place}?|Well, {who} likes {thing}.",
    "zh": "{who}花了{n}块钱买了{thing}。|火车{hour}点{minute}分开。|{who}在哪里？|{who}能不能{verb}{thing}？|"
    "我生于{year}年{month}{dom}日。|我们需要{thing}、{thing}和{thing}。|{day}{hour}点给我打电话。|请{verb}{thing}！|"
    "{year}年有多少人来过{place}？|{who}说，{day}以前一定要{verb}它。|不，{who}在{place}。|好的，没问题。|答案是{big}。|"
    "比{year}年多了百分之{n}。|是{thing}，还是{thing}？|为什么{who}没有带{thing}就去了{place}？|{who}，早上好。|"
    "{day}，{who}去了{place}，{who}留在家里。|{n}、{n}、{n}。|现在几点了？|第{n}章。|先左转，再右转，然后走{n}米。|"
    "{who}和{who}在{place}遇见了{who}。|你在{place}见过{thing}吗？|{who}很喜欢{thing}，你呢？|真的吗？|谢谢你，{who}！",
    "ja": "{who}は{n}円で{thing}を買いました。|電車は{hour}時{minute}分に出ます。|{who}はどこにいますか？|"
    "{who}が{thing}を{verb}。|私は{year}年{month}{dom}日に生まれました。|{thing}、{thing}、それから{thing}が必要です。|"
    "{day}の{hour}時に電話してください。|{thing}を取ってください！|{year}年に何人が{place}へ来ましたか？|"
    "いいえ、{who}は{place}にいます。|はい、わかりました。|答えは{big}です。|{thing}ですか、{thing}ですか？|"
    "どうして{who}は{thing}を持たないで{place}へ行ったのですか？|{who}、おはようございます。|"
    "{day}、{who}は{place}へ行き、{who}は家にいました。|今、何時ですか？|第{n}章。|左に曲がって、{n}メートル歩きます。|"
    "{who}と{who}は{place}で{who}に会いました。|{place}で{thing}を見たことがありますか？|{who}は{thing}が好きです。|"
    "本当ですか？|ありがとうございます、{who}。",
}
_MARKS = {
    "en": (",", "......??!,", " "),
    "zh": ("，", "。。。。。。？？！，", ""),
    "ja": ("、", "。。。。。。？？！、", ""),
}


def _numbers(rng: random.Random) -> dict[str, Callable[[], str]]:
    return {
        "n": lambda: str(rng.choice((rng.randint(2, 20), rng.randint(2, 99), rng.randint(100, 999)))),
        "big": lambda: str(rng.choice((rng.randint(1000, 9999), rng.randint(10000, 999999)))),
        "digit": lambda: str(rng.randint(1, 9)),
        "hour": lambda: str(rng.randint(1, 12)),
        "minute": lambda: str(rng.randint(10, 59)),
        "dom": lambda: str(rng.randint(1, 28)),
        "year": lambda: str(rng.randint(1820, 2040)),
    }


def by_pattern(language: str, rng: random.Random) -> Iterator[str]:
    """Endless filled patterns; a quarter of them two in a row, as in talk."""
    numbers = _numbers(rng)
    fillers = {key: words.split("|") for key, words in _FILLERS[language].items()}
    patterns = _PATTERNS[language].split("|")

    def one() -> str:
        text = rng.choice(patterns)
        while "{" in text:
            key = text[text.index("{") + 1 : text.index("}")]
            filled = numbers[key]() if key in numbers else rng.choice(fillers[key])
            text = text.replace("{" + key + "}", filled, 1)
        return text[0].upper() + text[1:]

    space = _MARKS[language][2]
    while True:
        yield space.join(one() for _ in range(rng.choice((1, 1, 1, 2))))


def word_strings(language: str, words: Words, longest: int, rng: random.Random) -> Iterator[str]:
    """Endless strings of 1 to `longest` words in no order; a third of them have one, two or three."""
    comma, ends, space = _MARKS[language]
    half = longest // 2
    spans = ((1, 1), (2, 3), (min(4, half), min(9, longest)), (min(8, half), half), (half, longest))
    while True:
        low, high = rng.choices(spans, (2.0, 2.0, 3.0, 3.0, 1.5))[0]
        chosen = rng.choices(words[0], words[1], k=rng.randint(low, high))
        share = rng.choice((0.0, 0.06, 0.12))
        marked = [w + (comma if rng.random() < share else "") for w in chosen[:-1]]
        yield space.join([*marked, chosen[-1]]) + rng.choice(ends)


def frequencies(words: Sequence[str], allowed: Sequence[str], flat: float = 0.55) -> Words:
    """`allowed` words, drawn by how often `words` hold them, flattened; those never met now and then."""
    count = Counter(words)
    return allowed, [(count[w] + 0.05) ** flat for w in allowed]
