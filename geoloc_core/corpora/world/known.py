"""What is known about countries: a table per feature, value → two-letter codes. What is not listed, neighbours tell."""

LEFT = (
    "GB IE MT CY AU NZ JP IN PK BD LK NP BT TH MY SG BN ID TL PG FJ SB TO KI NR TV CK NU WS ZA NA BW ZW ZM MW "
    "MZ TZ KE UG "
    "LS SZ MU SC HK MO JM BB TT BS AG DM GD KN LC VC GY SR BM KY VG VI AI MS TC FK GG JE IM MV SH TK PN NF CX CC GS IO"
)
"""Where people drive on the left."""

CENTRE = {
    "yellow": "US CA MX GT BZ HN SV NI CR PA CO VE EC PE BR BO CL AR UY PY DO HT CU PR JM NO KR CN TW TH VN PH "
    "IL KZ MN KH LA FI",
    "white": "GB IE FR ES PT IT DE AT CH BE NL LU DK SE IS PL CZ SK HU SI HR RS BA BG RO GR TR UA BY RU EE LV "
    "LT AU NZ JP IN "
    "ZA NA BW ZW ZM TZ KE UG MA DZ TN EG SA AE JO LB QA OM ID MY SG HK NG GH SN IR IQ GE AM AZ AL MK ME MT CY",
}
EDGE = {
    "yellow": "IE ZA NA BW ZW ZM LS SZ KE UG JO EG SA AE QA OM KW IL TR LB IR IQ BH YE",
    "white": "US CA MX BR AR CL CO PE EC BO PY UY FR ES PT IT DE AT CH SE NO FI DK IS PL CZ SK HU RO BG GR RU "
    "UA BY JP KR CN "
    "TW AU NZ GB TH MY EE LV LT NL BE",
    "none": "IN BD NP PK ID PH VN KH LA MM NG GH SN ML ET MG TZ HT CU MN TJ KG LK",
}
PLATE = {
    "yellow": "GB NL LU IL CO KE TZ UG HK LK GI CY PS MO IM JE GG SR",
    "blue": "CN",
    "black": "MY SG ID",
    "green": "BD BT",
    "red": "NP",
    "eu": "FR ES PT IT DE AT BE DK SE FI PL CZ SK HU SI HR BG RO GR IE EE LV LT MT NO",
    "white": "US CA MX BR AR CL PE EC BO PY UY CH IS RU UA BY KZ JP KR TW TH VN PH IN PK AU NZ ZA NA BW EG MA "
    "TR SA AE JO RS "
    "GE AM AZ CR PA GT",
}
SIGN = {
    "green": "US CA MX GT HN SV NI CR PA CO VE EC PE BR BO PY UY CU DO JM AU NZ KR TW IN PK BD LK NP ID PH MY "
    "SG IT GB IE TR SK "
    "ZA NA BW ZW ZM CY PL UA LT IR IQ KE NG GH TZ UG CH AL",
    "blue": "JP CN TH VN KH LA RU BY KZ FI SE DK NL BE CZ RO BG GR HR RS IL EG JO SA AE QA OM KW MA DZ TN HK ES "
    "MN HU ET FR AR CL LB",
    "yellow": "NO DE SI BA ME MK XK",
    "white": "AT PT IS EE LV LU LI",
}
WARNING = {
    "yellow diamond": "US CA MX GT BZ HN SV NI CR PA CO VE EC PE BR BO CL AR UY PY DO HT CU PR JM AU NZ JP IE "
    "TH MY ID PG TL LR KH",
    "yellow triangle": "SE FI IS PL GR CN KR VN MK NG KW AF IR MN LA",
    "red triangle": "GB FR ES PT IT DE AT CH BE NL LU DK NO CZ SK HU SI HR RS BA BG RO TR UA BY RU EE LV LT IN "
    "PK BD LK NP ZA NA BW "
    "ZW ZM TZ KE UG MA DZ TN EG SA AE JO LB IL ET TW HK PH SG",
}
BOLLARD = {
    "white with red band": "FR NZ AU TR MA DZ TN RE NC",
    "white with black band": "DE AT CH LU IT SI HR PT RS BA ME HU BG",
    "white with yellow band": "ES NO SE FI DK IS NL BE AD",
    "black and white": "GB IE EE LV LT RU UA BY KZ GE AZ AM IN PK BD LK KE UG TZ ZA NA",
    "red and white": "PL CZ SK GR MK AL RO CY MT CN IR",
    "orange": "JP KR TW US CA MX CO BR CL AR TH VN",
    "yellow": "MY SG ID PH PE EC CR PA GT AE SA JO EG IL",
}
POLE = {
    "wood": "US CA AU NZ NO SE FI GB IE IS RU BY EE LV LT UA KZ ZA NA BW ZW KE UG TZ ET MN CR PA HN PG",
    "concrete": "JP KR TW TH VN KH LA PH MY ID IN BD LK IT ES GR BR AR PY UY PE CO EC MX CN HU RO BG RS PL PT "
    "TR IR EG TN",
    "steel": "DE AT CH NL BE LU DK SG HK SA AE QA IL JO FR CZ SK SI HR MA",
}
STYLE = {
    "nordic timber": "NO SE FI FO AX IS GL SJ EE LV LT",
    "brick terrace": "GB IE NL BE IM GG JE DK LU",
    "half timber": "DE AT CH LI CZ PL SI",
    "grand stone": "FR MC HU",
    "mediterranean": "ES PT IT HR ME AL MT SM VA AD BA MK RS BG RO GI SK",
    "white cube": "GR CY TN",
    "panel block": "RU BY UA KZ KG MD TJ UZ TM MN KP AM GE AZ",
    "adobe": "EG LY DZ MA EH MR ML NE TD SD SY IQ IR AF YE OM SA KW BH QA AE JO LB PS IL TR PK DJ ER",
    "clapboard": "US CA PM BM VI",
    "bungalow": "AU NZ FJ ZA NA BW ZW SZ LS FK NC",
    "tile roof": "JP",
    "tower blocks": "CN KR HK MO SG TW",
    "stilt house": "TH LA KH VN MM MY ID PH BN TL PG LK BD",
    "painted colonial": "MX GT HN SV NI CR PA CO VE EC PE BO CU DO HT PR BR CL AR UY PY CW AW BQ MQ GP GF BZ SR GY",
    "tin roof": "KE TZ UG RW BI ET SO SS CD CG CM CF GA GQ NG GH CI SN GM GN GW SL LR TG BJ BF ZM MW MZ AO MG "
    "KM JM TT BB",
    "flat concrete": "IN NP BT",
}
"""How people build: names of styles in ``paint/buildings.py``."""

SCRIPT = {
    "cyrillic": "ru uk be bg mk kk ky mn tg sr",
    "arabic": "ar fa ur ps ckb ug prs sd dv",
    "devanagari": "hi ne mr bn dz",
    "thai": "th lo my km",
    "hangul": "ko",
    "kana": "ja",
    "han": "zh yue",
    "greek": "el",
    "hebrew": "he",
    "georgian": "ka",
    "armenian": "hy",
    "ethiopic": "am ti",
    "tamil": "ta si te",
}
"""Script of a language; every other one is written in Latin letters."""

SCRIPT_OF = {"IN": "devanagari"}
"""Script of a country whose first listed language is not that of most signs."""

FLAGS = {
    "v": "FR:0050a0,ffffff,e02030 IT:009246,ffffff,ce2b37 IE:169b62,ffffff,ff883e BE:111111,fae042,ed2939 "
    "RO:002b7f,fcd116,ce1126 "
    "MX:006847,ffffff,ce1126 PE:d91023,ffffff,d91023 NG:008751,ffffff,008751 CA:e02030,ffffff,e02030 "
    "GT:4997d0,ffffff,4997d0 "
    "PT:006600,ee2030,ee2030 DZ:006233,ffffff,ffffff ML:14b53a,fcd116,ce1126 PK:ffffff,0a5a2a,0a5a2a",
    "h": "DE:111111,dd0000,ffce00 NL:ae1c28,ffffff,21468b RU:ffffff,0039a6,d52b1e AT:ed2939,ffffff,ed2939 "
    "HU:cd2a3e,ffffff,436f4d "
    "BG:ffffff,00966e,d62612 PL:ffffff,dc143c UA:0057b7,ffd700 ES:aa151b,f1bf00,f1bf00,aa151b AR:74acdf,ffffff,74acdf "
    "CO:fcd116,fcd116,003893,ce1126 EC:ffdd00,ffdd00,0033a0,ef3340 VE:ffcc00,00247d,cf142b "
    "IN:ff9933,ffffff,138808 ID:ce1126,ffffff "
    "EG:ce1126,ffffff,111111 TH:a51931,ffffff,2d2a4a,ffffff,a51931 KE:111111,bb0000,006600 EE:0072ce,111111,ffffff "
    "LT:fdb913,006a44,c1272d LV:9e3039,ffffff,9e3039 HR:ff0000,ffffff,171796 CR:002b7f,ffffff,ce1126,ffffff,002b7f "
    "GR:0d5eaf,ffffff,0d5eaf,ffffff,0d5eaf "
    "MY:cc0000,ffffff,cc0000,ffffff,cc0000 "
    "ZA:de3831,007a4d,002395 BO:d52b1e,f9e300,007934 ET:078930,fcdd09,da121a GH:ce1126,fcd116,006b3f "
    "IL:ffffff,0038b8,ffffff,0038b8,ffffff "
    "CZ:ffffff,d7141a SK:ffffff,0b4ea2,ee1c25 SI:ffffff,0000ff,ff0000 RS:c6363c,0c4076,ffffff "
    "UY:ffffff,0038a8,ffffff,0038a8 "
    "CL:ffffff,d52b1e CU:002a8f,ffffff,002a8f,ffffff SG:ed2939,ffffff IR:239f40,ffffff,da0000 KH:032ea1,e00025,032ea1",
    "u": "US:b22234,ffffff,b22234,ffffff,b22234,ffffff,b22234,3c3b6e",
    "x": "NO:ba0c2f,ffffff,00205b SE:006aa7,fecc02 FI:ffffff,003580 DK:c60c30,ffffff IS:02529c,ffffff,dc1e35",
    "c": "GB:012169,ffffff,c8102e CH:d52b1e,ffffff DO:002d62,ffffff JM:009b3a,fed100",
    "o": "JP:ffffff,bc002d BD:006a4e,f42a41 KR:ffffff,c0304f BR:009c3b,ffdf00 TR:e30a17,ffffff CN:de2910,ffde00 "
    "VN:da251d,ffff00 "
    "TN:e70013,ffffff MA:c1272d,006233 HK:de2910,ffffff TW:fe0000,000095 AU:00247d,ffffff NZ:00247d,cc142b "
    "SA:006c35,ffffff PW:4aadd6,ffde00",
}
"""Flags, much simplified: stripes (v, h), stripes and a canton (u), a Nordic cross (x), a cross (c) or a disc (o)."""


def by_code(table: dict[str, str]) -> dict[str, str]:
    """Turn value → codes into code → value."""
    return {code: value for value, codes in table.items() for code in codes.split()}


def flag_of(code: str) -> tuple[str, list[tuple[int, int, int]]] | None:
    """The pattern and the colours of a country's flag, if it is known."""
    for pattern, text in FLAGS.items():
        for entry in text.split():
            if entry.startswith(code + ":"):
                colours = entry[3:].split(",")
                return pattern, [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours]
    return None
