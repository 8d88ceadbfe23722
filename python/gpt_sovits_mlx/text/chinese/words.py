"""Word lists of the tone rules: facts of the speech that the published weights were trained on."""

# Words whose second syllable is neutral. First column: last character, then the first characters that go
# before it (头:甜 is 甜头); below, the words whose last character occurs once.
_NEUTRAL_BY_LAST = """
    巴:尾下哑眨嘴 饼:烧月 才:奴秀 碜:寒牙 袋:口脑 当:行妥稳 道:地厚门 发:打头 方:比大地
    坊:街作 缝:裁眯 夫:大功工姐丈 妇:寡媳 服:佩舒衣 个:那这 害:厉利 罕:希稀 号:记字 和:暖软温
    候:火时 呼:称招 糊:含糨烂迷模 乎:玄在 唤:叫使 火:柴红 伙:家小 活:快忙养 辑:编逻 计:伙算
    疾:痢疟 家:东娘婆亲人冤 匠:木石铁 口:两牲 快:凉勤爽痛 璃:玻琉 量:打商思 亮:漂月
    么:多那什怎这 气:福客阔力脾丧小秀运志 亲:父母 情:交事 人:爱大媒丈 生:畜先学 事:本差干故
    士:道护 识:见认意知 实:结老踏扎壮 司:官上 思:心意 算:打盘 嗦:哆罗 堂:弄名 腾:倒翻扑折
    同:合胡 头:锄对跟骨罐后浪老里码馒苗木念前拳上舌石甜丫枕指 息:出消休 性:记悟 爷:大老姥少 意:大生主
    在:不实自 帚:炊扫笤
"""
_NEUTRAL_OTHERS = """
    巴结 巴掌 白净 棒槌 帮手 包袱 报复 包涵 荸荠 扁担 别扭 槟榔 薄荷 簸箕 拨弄 补丁 部分 不由
    财主 苍蝇 窗户 刺激 刺猬 聪明 凑合 打扮 打点 耷拉 打听 答应 耽搁 耽误 得罪 灯笼 提防 嘀咕
    弟兄 惦记 点心 动静 动弹 东西 豆腐 嘟囔 对付 队伍 多少 耳朵 费用 分析 凤凰 风筝 咖喱 甘蔗
    高粱 告示 告诉 膏药 胳膊 疙瘩 咕噜 姑娘 怪物 棺材 关系 规矩 闺女 过去 蛤蟆 哈欠 和尚 核桃
    喉咙 狐狸 葫芦 胡萝 胡琴 糊涂 滑溜 荒唐 馄饨 活泼 计划 脊梁 机灵 吉他 架势 嫁妆 将就 讲究
    介绍 戒指 精神 开通 咳嗽 窟窿 困难 喇叭 喇嘛 邋遢 蜡烛 懒得 老婆 牢骚 老太 累赘 冷战 篱笆
    里脊 利落 利索 连累 粮食 趔趄 铃铛 溜达 喽啰 萝卜 骆驼 麻烦 马虎 麻利 蚂蚱 买卖 冒失 玫瑰
    眉毛 棉花 苗条 明白 名字 蘑菇 难为 能耐 泥鳅 念叨 女婿 牌楼 盘缠 朋友 屁股 枇杷 琵琶 便宜
    铺盖 菩萨 葡萄 欺负 千斤 亲戚 清楚 情形 热闹 扫把 似的 拾掇 师傅 师父 世故 石榴 收成 收拾
    首饰 疏忽 舒坦 熟悉 算盘 岁数 抬举 太阳 特务 体面 挑剔 跳蚤 唾沫 拖沓 挖苦 外甥 委屈 位置
    窝囊 喜欢 吓唬 下水 相声 笑话 笑语 新鲜 幸福 行李 兄弟 学问 衙门 眼睛 砚台 烟筒 胭脂 秧歌
    吆喝 妖精 钥匙 一辈 衣裳 应酬 冤枉 鸳鸯 云彩 匀称 造化 糟蹋 栅栏 张罗 帐篷 照顾 招牌 正经
    指甲 芝麻 妯娌 嘱咐 转悠 庄稼 状元 琢磨 祖宗
"""


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEUTRAL_WORDS = _listed(_NEUTRAL_OTHERS) | {
    first + group[0] for group in _NEUTRAL_BY_LAST.split() for first in group[2:]
}

# Doubled characters and words in 子 that keep their full tone.
FULL_TONE_WORDS = _listed(
    """
    人人 佼佼 冉冉 吵吵 哈哈 想想 打打 攘攘 数数 整整 死死 熙熙 考考 幺幺 恳恳 莘莘 虎虎 袅袅 青青
    娃哈哈 家家户户 花花草草
    分子 卵子 原子 女子 学子 瓜子 电子 男子 石子 算子 莲子 量子
    """
)

# Words (or last two characters of words) in which 儿 is a syllable of its own, a child or a creature.
FULL_ER_WORDS = _listed(
    """
    乞儿 我儿 俺儿 妻儿 孤儿 婴儿 孙儿 少儿 幼儿 患儿 男儿 女儿 侄儿 聋儿
    花儿 虫儿 马儿 鸟儿 猪儿 猫儿 狗儿
    一儿 为儿 有儿 护儿 拐儿 救儿 替儿 瞒儿 虐儿
    可儿 美儿 祖儿 舫儿 应采儿 蜜雪儿 红孩儿
    体弱儿 流浪儿 混血儿 脑瘫儿 连体儿
    """
)
# 儿 colours the syllable before it here even where the tag says adjective, abbreviation or name.
ERHUA_WORDS = _listed("媳妇儿 小院儿 胡同儿 范儿 老汉儿 撒欢儿 妥妥儿 寻老礼儿")

# Words in which 长 is 'long' although no dictionary of phrases has them: 长's reading alone is 'grow'.
LONG_WORDS = _listed(
    """
    全长 最长 体长 多长 加长 边长 等长 步长 字长 臂长 悠长 绵长 纵长 长宽 长住 长时间 长距离 长此下去 长盛不衰
    长发 长裙 长凳 长椅 长桌 长鞭 长绳 长堤 长桥 长路 长巷 长尾 长脚 长嘴 长臂 长骨 长轴 长效 长传 长风 长航
    长尾巴 长耳朵 长三角 长白 长治 长平 长野 长宁 长阳 长山 长葛 长丰 长垣 长清 长荣 长岛 长滩 长湖 长庆 长陵
    长津湖 长辛店 有长有短
    """
)
