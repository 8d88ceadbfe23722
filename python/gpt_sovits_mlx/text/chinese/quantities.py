"""Numbers that count or measure something: units, quantifiers, percentages, fractions, money, ranges."""

import re

from .numbers import SIGNED, UNSIGNED, spell_cardinal, spell_digits, spell_number

# Units as they are written behind a number. Case decides where two units differ by it alone.
_UNITS = {
    "mm": "毫米", "cm": "厘米", "dm": "分米", "m": "米", "km": "千米", "nm": "纳米", "μm": "微米", "um": "微米",
    "mm2": "平方毫米", "cm2": "平方厘米", "m2": "平方米", "km2": "平方千米",
    "mm3": "立方毫米", "cm3": "立方厘米", "m3": "立方米",
    "mg": "毫克", "g": "克", "kg": "千克", "KG": "千克", "Kg": "千克", "t": "吨", "μg": "微克",
    "ml": "毫升", "mL": "毫升", "ML": "毫升", "l": "升", "L": "升",
    "ms": "毫秒", "s": "秒", "min": "分钟", "h": "小时",
    "db": "分贝", "dB": "分贝", "Hz": "赫兹", "kHz": "千赫兹", "MHz": "兆赫兹", "GHz": "吉赫兹",
    "W": "瓦", "kW": "千瓦", "kWh": "千瓦时", "V": "伏", "mA": "毫安", "mAh": "毫安时",
    "Pa": "帕", "kPa": "千帕", "kcal": "千卡", "cal": "卡", "kJ": "千焦",
}  # fmt: skip
_UNITS |= {unit[:-1] + "²": words for unit, words in _UNITS.items() if unit.endswith("2")}
_UNITS |= {unit[:-1] + "³": words for unit, words in _UNITS.items() if unit.endswith("3")}
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
# Without a number in front only the unmistakable ones are units (单位是kg).
_STANDALONE = "cm|db|kg|km|ml|mm"
_UNIT_END = r"(?![A-Za-z0-9²³])"
_MEASURED = re.compile(rf"(?<=[\d一二三四五六七八九十百千万亿零点半两几多])({_UNIT})(?:/({_UNIT}))?{_UNIT_END}")
_UNIT_ALONE = re.compile(rf"(?<![A-Za-z0-9])({_STANDALONE}){_UNIT_END}")
_PER_UNIT = re.compile(rf"/({_UNIT}){_UNIT_END}")

# Characters that open a quantifier. 两 replaces 二 in front of these.
_QUANTIFIERS = (
    "处台架枚趟幅平方堵间床株批项例列篇栋注亩封艘把目套段人所朵匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠"
    "曲墙群腔砣客贯扎捆刀令打手罗坡山岭江溪钟队单双对出口头脚板跳枝件贴针线管名位身堂课本页家户层丝毫厘分钱两斤铢"
    "石钧锱忽寸尺丈里寻常铺程米撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅簋篮罐瓶壶卮盏箩箱煲啖袋钵年月日季刻时周天秒旬纪岁"
    "世更夜春夏秋冬代伏辈丸泡粒幢堆根道面片块元角亿万千百吨"
)
_QUANTIFIED = re.compile(rf"(\d+)([多余几+]?)(?=[{_QUANTIFIERS}]|微[克米]|公分|小时|美元|十吨)(?!人工|网站)")
# More of what is counted: a long number before it is a cardinal, never a row of digits.
_COUNTED = re.compile(
    r"(?<![\d.])(\d{3,})([多余几+]?)(?=公里|公斤|公顷|公尺|英[里尺寸镑]|海里|光年|欧元|日元|港[元币]|韩元|卢布|美金|人民币"
    r"|立方|赫兹|兆[瓦赫]|马力|像素|字节|[种次倍票字步款圈克瓦伏卡磅])"
)
_ORDINAL = re.compile(r"(?<=第)(\d{1,4})(?!\d)")

_DEGREES = "°C|℃|度|摄氏度|°F|°"
_TEMPERATURE = re.compile(rf"(-?)({UNSIGNED})({_DEGREES})")
_TEMPERATURE_SPAN = re.compile(rf"({SIGNED})(?:{_DEGREES})?[-~]({SIGNED})({_DEGREES})")
_FRACTION = re.compile(r"(-?)(?<![\d.])(\d+)/(\d+)(?!\d|\.\d)")
_PERCENTAGE = re.compile(rf"(-?)({UNSIGNED})([%‰])")
_PERCENTAGE_SPAN = re.compile(rf"({SIGNED})[%‰]?[-~]({SIGNED})([%‰])")
_PARTS = {"%": "百", "‰": "千"}

_SPAN_WITH_UNITS = re.compile(rf"(?<=[%CFgmlsLh℃度分秒周元])~(?={SIGNED}(?:[%°℃度A-Za-z]|摄氏度))")
_DATE_SPAN = re.compile(r"(?<=[年月日号点时])[-~](?=前?[\d一二三四五六七八九十零]+[年月日号点时])")
_SPAN = re.compile(rf"(?<![\d+\-×÷=])({SIGNED})~({SIGNED})(?![\d+\-×÷=])")
_COUNTED_SPAN = re.compile(
    rf"(?<![\d.+\-×÷=/:A-Za-z])({UNSIGNED})-({UNSIGNED})"
    rf"(?=[{_QUANTIFIERS}种次倍步圈点号楼克章节集期级公]|小时|美元|{_UNIT}{_UNIT_END})"
)
_ORDINAL_SPAN = re.compile(r"(?<=第)(\d{1,4})-(\d{1,4})(?![\d\-])")

_CURRENCIES = {"$": "美元", "€": "欧元", "£": "英镑", "¥": "元", "￥": "元"}
_MONEY = re.compile(rf"([$€£¥￥])({UNSIGNED})([万亿]*)(?:美元|欧元|英镑|元)?")


def spell_money(text: str) -> str:
    """'$100' -> '100美元'. A sign without an amount stays: ￥ is a pause then."""
    return _MONEY.sub(lambda match: match[2] + match[3] + _CURRENCIES[match[1]], text)


def spell_ranges(text: str) -> str:
    """Ranges that a unit, a percent sign or a quantifier makes certain; bare '5-3' stays arithmetic."""
    text = _DATE_SPAN.sub("到", text)
    text = _SPAN_WITH_UNITS.sub("至", text)
    text = _TEMPERATURE_SPAN.sub(_spell_temperature_span, text)
    text = _PERCENTAGE_SPAN.sub(_spell_percentage_span, text)
    text = _ORDINAL_SPAN.sub(lambda match: f"{spell_cardinal(match[1])}到{spell_cardinal(match[2])}", text)
    return _COUNTED_SPAN.sub(_spell_counted_span, text)


def spell_spans(text: str) -> str:
    """'3~5' -> '三到五'."""
    return _SPAN.sub(lambda match: f"{spell_number(match[1])}到{spell_number(match[2])}", text)


def spell_units(text: str) -> str:
    """Units behind numbers, '5kg' -> '5千克', '120km/h' -> '120千米每小时', and 'kg' on its own."""
    text = _MEASURED.sub(lambda match: _UNITS[match[1]] + (f"每{_UNITS[match[2]]}" if match[2] else ""), text)
    text = _UNIT_ALONE.sub(lambda match: _UNITS[match[1]], text)
    return _PER_UNIT.sub(lambda match: f"每{_UNITS[match[1]]}", text)


def spell_temperatures(text: str) -> str:
    """'-5°C' -> '零下五度'; degrees of an angle are read alike."""
    return _TEMPERATURE.sub(lambda match: _temperature(match[1] + match[2]) + _degrees(match[3]), text)


def spell_fractions(text: str) -> str:
    """'3/4' -> '四分之三'."""
    return _FRACTION.sub(
        lambda match: ("负" if match[1] else "") + f"{spell_number(match[3])}分之{spell_number(match[2])}", text
    )


def spell_percentages(text: str) -> str:
    """'20%' -> '百分之二十', '5‰' -> '千分之五'."""
    return _PERCENTAGE.sub(
        lambda match: ("负" if match[1] else "") + f"{_PARTS[match[3]]}分之{spell_number(match[2])}", text
    )


def spell_counts(text: str) -> str:
    """Cardinals before quantifiers and behind 第; 2 is 两 before a quantifier."""
    text = _ORDINAL.sub(lambda match: spell_cardinal(match[1]), text)
    text = _COUNTED.sub(lambda match: spell_cardinal(match[1]) + match[2].replace("+", "多"), text)
    return _QUANTIFIED.sub(_spell_quantified, text)


def spell_versions(text: str) -> str:
    """'1.10.3' -> '一点一零点三'."""
    return re.sub(
        r"\d+(?:\.\d+){2,}", lambda match: "点".join(spell_digits(part) for part in match[0].split(".")), text
    )


def _spell_quantified(match: re.Match[str]) -> str:
    words = spell_cardinal(match[1])
    return ("两" if words == "二" else words) + match[2].replace("+", "多")


def _temperature(number: str) -> str:
    return ("零下" if number.startswith("-") else "") + spell_number(number.removeprefix("-"))


def _degrees(unit: str) -> str:
    return {"摄氏度": "摄氏度", "°F": "华氏度"}.get(unit, "度")


def _spell_temperature_span(match: re.Match[str]) -> str:
    return f"{_temperature(match[1])}到{_temperature(match[2])}{_degrees(match[3])}"


def _spell_percentage_span(match: re.Match[str]) -> str:
    if float(match[1]) >= float(match[2]):
        return match[0]
    part = _PARTS[match[3]]
    return f"{part}分之{spell_number(match[1])}到{part}分之{spell_number(match[2])}"


def _spell_counted_span(match: re.Match[str]) -> str:
    if float(match[1]) >= float(match[2]):
        return match[0]
    return f"{spell_number(match[1])}到{spell_number(match[2])}"
