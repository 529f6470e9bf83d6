"""Two studies as project XML: a garden club (classic) and a bird count (longitudinal)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

HEAD = (
    '<?xml version="1.0" encoding="UTF-8" ?>\n'
    '<ODM xmlns="http://www.cdisc.org/ns/odm/v1.3" xmlns:redcap="https://projectredcap.org"'
    ' ODMVersion="1.3.1" FileOID="000-00-0000" FileType="Snapshot" SourceSystem="REDCap">'
)


@dataclass(frozen=True)
class Item:
    """One field of a study."""

    name: str
    label: str
    kind: str = "text"
    choices: Mapping[str, str] | None = None
    calculation: str = ""
    extra: str = ""
    """More attributes, as XML."""
    least: str = ""
    most: str = ""


def item_xml(item: Item) -> str:
    """The definition of a field, with one element per choice for a checkbox."""
    names = [item.name]
    if item.kind == "checkbox" and item.choices:
        names = [f"{item.name}___{code}" for code in item.choices]
    return "".join(_one_item(item, name) for name in names)


def _one_item(item: Item, oid: str) -> str:
    calculation = f" redcap:Calculation={quoteattr(item.calculation)}" if item.calculation else ""
    codes = f'<CodeListRef CodeListOID="{oid}.choices"/>' if item.choices else ""
    checks = "".join(
        f'<RangeCheck Comparator="{sign}"><CheckValue>{value}</CheckValue></RangeCheck>'
        for sign, value in (("GE", item.least), ("LE", item.most))
        if value
    )
    return (
        f'<ItemDef OID="{oid}" Name="{oid}" DataType="text" redcap:Variable="{item.name}"'
        f' redcap:FieldType="{item.kind}"{calculation} {item.extra}>'
        f"<Question><TranslatedText>{escape(item.label)}</TranslatedText></Question>"
        f"{codes}{checks}</ItemDef>"
    )


def codes_xml(item: Item) -> str:
    """The choices of a field."""
    if not item.choices:
        return ""
    if item.kind == "checkbox":
        whole = quoteattr("|".join(f"{code}, {label}" for code, label in item.choices.items()))
        return "".join(
            f'<CodeList OID="{item.name}___{code}.choices" redcap:Variable="{item.name}"'
            f" redcap:CheckboxChoices={whole}/>"
            for code in item.choices
        )
    entries = "".join(
        f'<CodeListItem CodedValue="{code}"><Decode><TranslatedText>{escape(label)}'
        "</TranslatedText></Decode></CodeListItem>"
        for code, label in item.choices.items()
    )
    return f'<CodeList OID="{item.name}.choices">{entries}</CodeList>'


def form_xml(name: str, label: str, items: Iterable[Item]) -> str:
    """A form with its group of fields and its status field."""
    items = [*items, Item(f"{name}_complete", "Complete?", "select")]
    oids = [
        oid
        for item in items
        for oid in (
            [f"{item.name}___{code}" for code in item.choices]
            if item.kind == "checkbox" and item.choices
            else [item.name]
        )
    ]
    references = "".join(f'<ItemRef ItemOID="{oid}" Mandatory="No"/>' for oid in oids)
    return (
        f'<FormDef OID="Form.{name}" Name={quoteattr(label)} redcap:FormName="{name}">'
        f'<ItemGroupRef ItemGroupOID="{name}.all" Mandatory="No"/></FormDef>'
        f'<ItemGroupDef OID="{name}.all" Name={quoteattr(label)}>{references}</ItemGroupDef>'
        + "".join(map(item_xml, items))
        + "".join(map(codes_xml, items))
    )


def data_xml(form: str, values: Mapping[str, str]) -> str:
    """Answers to one form."""
    items = "".join(
        f"<ItemData ItemOID={quoteattr(k)} Value={quoteattr(v)}/>" for k, v in values.items()
    )
    return (
        f'<FormData FormOID="Form.{form}" FormRepeatKey="1">'
        f'<ItemGroupData ItemGroupOID="{form}.all" ItemGroupRepeatKey="1">{items}'
        "</ItemGroupData></FormData>"
    )


MEMBERS = [
    Item("record_id", "Study ID"),
    Item("first_name", "First name", extra='redcap:SectionHeader="Contact" redcap:Identifier="y"'),
    Item("last_name", "Last name", extra='redcap:Identifier="y"'),
    Item("address", "Where is the garden?", "textarea"),
    Item(
        "phone", "Phone", extra='redcap:TextValidationType="phone" redcap:FieldNote="With prefix"'
    ),
    Item("mail", "Mail", extra='redcap:TextValidationType="email"'),
    Item("joined", "Joined on", extra='redcap:TextValidationType="date_ymd"'),
    Item("years", "Years", "calc", calculation="rounddown(datediff([joined],'today','y'))"),
    Item("soil", "Soil", "radio", {"0": "Sand", "1": "Clay", "2": "Loam"}),
    Item("light", "Light", "select", {"0": "Sun", "1": "Half shade", "2": "Shade"}),
    Item("fence", "Fence?", "radio", {"0": "None", "1": "Hedge"}),
    Item("length", "Length (m)", extra='redcap:TextValidationType="float"', least="1", most="99"),
    Item("width", "Width (m)", extra='redcap:TextValidationType="int"', least="1", most="99"),
    Item("area", "Area", "calc", calculation="round([length]*[width],1)"),
    Item("comments", "Comments", "textarea", extra='redcap:SectionHeader="General"'),
]


def _member(number: int, name: str) -> str:
    values = {
        "record_id": str(number),
        "first_name": name,
        "last_name": "Gardener",
        "address": "By the canal, gate 3",
        "phone": "+33 2 35 00 00 00",
        "mail": f"{name.lower()}@example.org",
        "joined": "2021-10-13",
        "years": "4",
        "soil": "2",
        "light": "1",
        "fence": "0",
        "length": "12.5",
        "width": "4",
        "area": "50",
        "members_complete": "2",
    }
    return f'<SubjectData SubjectKey="{number}">{data_xml("members", values)}</SubjectData>'


def garden_club() -> str:
    """A classic study of 15 fields, 2 of them calculated, with 3 members: 34 values."""
    newcomer = data_xml(
        "members",
        {"record_id": "3", "first_name": "Cleo", "last_name": "New", "members_complete": "0"},
    )
    return (
        f'{HEAD}<Study OID="Project.Garden"><GlobalVariables><StudyName>Garden club</StudyName>'
        "<redcap:RecordAutonumberingEnabled>0</redcap:RecordAutonumberingEnabled>"
        "<redcap:SurveysEnabled>1</redcap:SurveysEnabled><redcap:Purpose>0</redcap:Purpose>"
        '<redcap:DataAccessGroupsGroup><redcap:DataAccessGroups group_name="North gate"/>'
        "</redcap:DataAccessGroupsGroup>"
        '<redcap:UserRolesGroup><redcap:UserRoles role_name="Treasurer"/></redcap:UserRolesGroup>'
        '<redcap:SurveysGroup><redcap:Surveys form_name="members" title="Membership"'
        ' instructions="&lt;p&gt;Welcome&lt;/p&gt;" acknowledgement="&lt;p&gt;Thanks&lt;/p&gt;"'
        ' save_and_return="1" survey_enabled="1"/></redcap:SurveysGroup>'
        '<redcap:SurveysQueueGroup><redcap:SurveysQueue form="members" event="event_1_arm_1"/>'
        "</redcap:SurveysQueueGroup>"
        '</GlobalVariables><MetaDataVersion OID="Metadata.Garden" redcap:RecordIdField="record_id">'
        f"{form_xml('members', 'Members', MEMBERS)}</MetaDataVersion></Study>"
        f'<ClinicalData StudyOID="Project.Garden">{_member(1, "Ada")}{_member(2, "Bo")}'
        f'<SubjectData SubjectKey="3">{newcomer}</SubjectData></ClinicalData></ODM>'
    )


FORMS = {
    "observer": [
        Item("study_id", "Study ID"),
        Item("observer_name", "Name"),
        Item("seasons", "Seasons", "checkbox", {"1": "Spring", "2": "Autumn"}),
        Item("study_comments", "Comments", "textarea"),
    ],
    "contact": [Item("mail", "Mail", extra='redcap:TextValidationType="email"')],
    "site": [
        Item("site_name", "Site"),
        Item("site_depth", "Depth", extra='redcap:TextValidationType="int"'),
    ],
    "weather": [Item("wind", "Wind", "select", {"1": "Calm", "2": "Gale"})],
    "count": [Item("gulls", "Gulls"), Item("terns", "Terns")],
    "rings": [Item("ring", "Ring")],
    "behaviour": [Item("behaviour", "Behaviour", "textarea")],
    "closing": [Item("closed_on", "Closed on", extra='redcap:TextValidationType="date_ymd"')],
    "feedback": [Item("feedback", "Feedback", "textarea")],
}

_START = ["observer", "contact", "site"]
_SHORT = ["weather"]
_VISIT = ["weather", "count", "rings", "behaviour"]
_LAST = ["weather", "count", "rings", "behaviour", "closing", "feedback"]
EVENTS: list[tuple[str, int, list[str]]] = [
    ("Start", 1, _START),
    ("Look 1", 1, _SHORT),
    ("Visit 1", 1, _VISIT),
    ("Look 2", 1, _SHORT),
    ("Visit 2", 1, _VISIT),
    ("Look 3", 1, _SHORT),
    ("Visit 3", 1, _VISIT),
    ("Last visit", 1, _LAST[:5]),
    ("Start", 2, _START),
    ("Deadline to leave the count", 2, ["contact"]),
    ("First look", 2, _SHORT),
    ("First visit", 2, _VISIT),
    ("Second look", 2, _SHORT),
    ("Second visit", 2, _VISIT),
    ("Last visit", 2, _LAST),
    ("Deadline to report", 2, ["contact"]),
]
UNIQUE = [
    "start_arm_1", "look_1_arm_1", "visit_1_arm_1", "look_2_arm_1", "visit_2_arm_1",
    "look_3_arm_1", "visit_3_arm_1", "last_visit_arm_1", "start_arm_2",
    "deadline_to_leave_arm_2", "first_look_arm_2", "first_visit_arm_2", "second_look_arm_2",
    "second_visit_arm_2", "last_visit_arm_2", "deadline_to_report_arm_2",
]  # fmt: skip
ARM_NAMES = {1: "Coast", 2: "Estuary"}


def _event_xml(number: int, label: str, arm: int, forms: list[str]) -> str:
    references = "".join(
        f'<FormRef FormOID="Form.{form}" Mandatory="No" redcap:FormName="{form}"/>'
        for form in forms
    )
    return (
        f'<StudyEventDef OID="Event.{UNIQUE[number]}" Name={quoteattr(label)}'
        f' redcap:EventName={quoteattr(label)} redcap:UniqueEventName="{UNIQUE[number]}"'
        f' redcap:ArmNum="{arm}" redcap:ArmName="{ARM_NAMES[arm]}" redcap:DayOffset="{number}"'
        f' redcap:OffsetMin="0" redcap:OffsetMax="0">{references}</StudyEventDef>'
    )


def _visit_xml(event: str, forms: Mapping[str, Mapping[str, str]], key: int = 1) -> str:
    data = "".join(data_xml(form, values) for form, values in forms.items())
    return (
        f'<StudyEventData StudyEventOID="Event.{event}" StudyEventRepeatKey="{key}"'
        f' redcap:UniqueEventName="{event}">{data}</StudyEventData>'
    )


def bird_count() -> str:
    """A longitudinal study: 9 forms, 2 arms, 16 events, 43 mappings, one repeating form."""
    events = "".join(
        _event_xml(number, label, arm, forms) for number, (label, arm, forms) in enumerate(EVENTS)
    )
    forms = "".join(form_xml(name, name.capitalize(), items) for name, items in FORMS.items())
    first = _visit_xml(
        "start_arm_1",
        {
            "observer": {"study_id": "1", "observer_name": "Ada", "seasons___1": "1",
                         "seasons___2": "0", "observer_complete": "0"},
            "site": {"site_name": "Cliff", "site_depth": "7", "site_complete": "2"},
        },
    ) + _visit_xml("visit_1_arm_1", {"count": {"gulls": "5", "count_complete": "0"}})  # fmt: skip
    second = _visit_xml(
        "start_arm_2", {"observer": {"study_id": "2", "observer_name": "Bo"}}
    ) + _visit_xml("first_visit_arm_2", {"count": {"gulls": "11"}})
    return (
        f'{HEAD}<Study OID="Project.Birds"><GlobalVariables><StudyName>Bird count</StudyName>'
        "<redcap:SurveysEnabled>1</redcap:SurveysEnabled><redcap:Purpose>0</redcap:Purpose>"
        "<redcap:RepeatingInstrumentsAndEvents><redcap:RepeatingInstruments>"
        '<redcap:RepeatingInstrument redcap:UniqueEventName="visit_1_arm_1"'
        ' redcap:RepeatInstrument="rings" redcap:CustomLabel="Ring [ring]"/>'
        "</redcap:RepeatingInstruments></redcap:RepeatingInstrumentsAndEvents>"
        '<redcap:SurveysGroup><redcap:Surveys form_name="contact" title="Contact"'
        ' save_and_return="0" survey_enabled="1"/></redcap:SurveysGroup>'
        f'</GlobalVariables><MetaDataVersion OID="Metadata.Birds"><Protocol/>{events}{forms}'
        '</MetaDataVersion></Study><ClinicalData StudyOID="Project.Birds">'
        f'<SubjectData SubjectKey="1">{first}</SubjectData>'
        f'<SubjectData SubjectKey="2">{second}</SubjectData></ClinicalData></ODM>'
    )


MAPPINGS = sum(len(forms) for _, _, forms in EVENTS)
