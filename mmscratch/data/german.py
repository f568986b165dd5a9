"""How the German words of scenes and questions are pronounced: the phones are those of speech.py."""

PRONUNCIATIONS = {  # 1 after a vowel is the main stress, 0 is none
    "affe": "AH1 F AX0", "affen": "AH1 F AX0 N", "als": "AH1 L S", "anker": "AH1 NG K AH0",
    "bild": "B IH1 L T", "bleistift": "B L AY1 SH T IH0 F T", "bleistifte": "B L AY1 SH T IH0 F T AX0",
    "blitz": "B L IH1 T S", "blitze": "B L IH1 T S AX0", "blume": "B L UU1 M AX0",
    "blumen": "B L UU1 M AX0 N", "briefumschlag": "B RR IY1 F UH0 M SH L AA0 K",
    "briefumschläge": "B RR IY1 F UH0 M SH L EE0 G AX0", "darunter": "D AH0 RR UH1 N T AH0",
    "das": "D AH1 S", "davon": "D AH0 F AO1 N", "dem": "D EE1 M", "der": "D EE1 AH0", "die": "D IY1",
    "ding": "D IH1 NG", "dinge": "D IH1 NG AX0", "drei": "D RR AY1", "ein": "AY1 N",
    "eine": "AY1 N AX0", "einem": "AY1 N AX0 M", "einen": "AY1 N AX0 N", "einer": "AY1 N AH0",
    "erste": "EE1 AH0 S T AX0", "es": "EH1 S", "farbe": "F AH1 RR B AX0", "flagge": "F L AH1 G AX0",
    "flaggen": "F L AH1 G AX0 N", "flugzeug": "F L UU1 K T S OY0 K",
    "flugzeuge": "F L UU1 K T S OY0 G AX0", "gibt": "G IY1 P T", "gleiche": "G L AY1 HY AX0",
    "haben": "HH AA1 B AX0 N", "hat": "HH AH1 T", "herz": "HH EH1 RR T S",
    "herzen": "HH EH1 RR T S AX0 N", "in": "IH1 N", "ist": "IH1 S T", "ja": "Y AA1",
    "katze": "K AH1 T S AX0", "katzen": "K AH1 T S AX0 N", "kleeblatt": "K L EE1 B L AH0 T",
    "kleeblätter": "K L EE1 B L EH0 T AH0", "kuh": "K UU1", "kühe": "K UE1 AX0",
    "könig": "K OE1 N IH0 HY", "könige": "K OE1 N IH0 G AX0", "links": "L IH1 NG K S",
    "man": "M AH1 N", "maus": "M AW1 S", "mehr": "M EE1 AH0", "mitte": "M IH1 T AX0",
    "mond": "M OO1 N T", "monde": "M OO1 N D AX0", "mäuse": "M OY1 Z AX0", "nach": "N AA1 KH",
    "nebeneinander": "N EE0 B AX0 N AY0 N AH1 N D AH0", "nein": "N AY1 N", "note": "N OO1 T AX0",
    "noten": "N OO1 T AX0 N", "oben": "OO1 B AX0 N", "pferd": "P F EE1 AH0 T",
    "pferde": "P F EE1 AH0 D AX0", "rad": "RR AA1 T", "rechts": "RR EH1 HY T S",
    "regenschirm": "RR EE1 G AX0 N SH IH0 RR M", "regenschirme": "RR EE1 G AX0 N SH IH0 RR M AX0",
    "räder": "RR EE1 D AH0", "schere": "SH EE1 RR AX0", "scheren": "SH EE1 RR AX0 N",
    "schneeflocke": "SH N EE1 F L AO0 K AX0", "schneeflocken": "SH N EE1 F L AO0 K AX0 N",
    "schneemann": "SH N EE1 M AH0 N", "schneemänner": "SH N EE1 M EH0 N AH0", "sieht": "Z IY1 T",
    "smiley": "S M AY1 L IY0", "smileys": "S M AY1 L IY0 S", "sonne": "Z AO1 N AX0",
    "sonnen": "Z AO1 N AX0 N", "stern": "SH T EH1 RR N", "sterne": "SH T EH1 RR N AX0",
    "tasse": "T AH1 S AX0", "tassen": "T AH1 S AX0 N", "telefon": "T EH0 L AX0 F OO1 N",
    "telefone": "T EH0 L AX0 F OO1 N AX0", "totenkopf": "T OO1 T AX0 N K AO0 P F",
    "totenköpfe": "T OO1 T AX0 N K OE0 P F AX0", "turm": "T UH1 RR M", "türme": "T UE1 RR M AX0",
    "und": "UH1 N T", "unten": "UH1 N T AX0 N", "unter": "UH1 N T AH0", "viele": "F IY1 L AX0",
    "von": "F AO1 N", "waage": "V AA1 G AX0", "waagen": "V AA1 G AX0 N", "was": "V AH1 S",
    "welche": "V EH1 L HY AX0", "wie": "V IY1", "wo": "V OO1", "wolke": "V AO1 L K AX0",
    "wolken": "V AO1 L K AX0 N", "zahnrad": "T S AA1 N RR AA0 T",
    "zahnräder": "T S AA1 N RR EE0 D AH0", "zeigt": "T S AY1 K T", "zwei": "T S V AY1",
    "zwischen": "T S V IH1 SH AX0 N", "über": "UE1 B AH0", "übereinander": "UE0 B AH0 AY0 N AH1 N D AH0",
}  # fmt: skip
_STEMS = {
    "blau": "B L AW1", "gelb": "G EH1 L B", "groß": "G RR OO1 S", "grün": "G RR UE1 N",
    "klein": "K L AY1 N", "orangefarben": "OO0 RR AH1 NG ZH AX0 F AH0 RR B AX0 N", "rot": "RR OO1 T",
    "schwarz": "SH V AH1 RR T S", "violett": "V IY0 OO0 L EH1 T", "weiß": "V AY1 S",
}  # fmt: skip
_ENDINGS = {"e": "AX0", "en": "AX0 N", "er": "AH0", "es": "AX0 S"}
for _stem, _phones in _STEMS.items():
    for _ending, _sound in _ENDINGS.items():
        PRONUNCIATIONS[_stem + _ending] = f"{_phones} {_sound}"
