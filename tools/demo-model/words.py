"""Word lists of the demo model's generator (written for it; no data from anywhere else)."""

COMMON = """
able about above act add after again age ago air all also always and angry animal answer ant any apple april apron arm army
arrow art ask aunt autumn awake away baby back bacon bad bag bake ball balloon banana band bank barn base basket bat bath
beach bean bear beard beat beauty bed bee before begin bell belt bench berry best better big bike bird birthday bite black
blanket blind block blood blow blue boat body bone book boot border born bottle bottom bowl box boy brain branch brave bread
break breeze brick bridge bright bring broom brother brown brush bubble bucket build bull burn bus busy butter butterfly
button buy cabin cake calm camel camp candle candy canoe capital captain car card carpet carrot carry cart castle cat catch
cave cell center chain chair chalk chance change cheap cheese cherry chess chest chicken child choose circle circus city
clap class clean clear clever cliff climb clock close cloth cloud clover clown coach coast coat cocoa coffee coin cold color
comb come cook cookie cool copper copy corn corner cotton count country courage cousin cover cow crab cradle crayon cream
creek crew crisp cross crowd crown cry cup curl curtain cut daily daisy dance danger dark daughter dawn day deal dear deep
deer desert desk dinner dirt dish dive doctor dog doll dolphin donkey door double down dragon draw dream dress drink drive
drop drum dry duck dull dust eager eagle ear early earth east easy eat echo edge egg eight elbow elephant eleven empty end
engine enjoy enter equal error evening ever every exam eye face fact fair fall family famous far farm farmer fast father
feast feather feed feel fence fern few field fig fight fill find finger fire first fish five flag flame flat float flock
floor flour flower flute fly fog fold follow food foot forest forget fork form fountain four fox free fresh friend frog
front frost fruit full funny fur garden garlic gate gather gentle ghost giant gift giraffe girl give glad glass globe
glove glow glue goat gold good goose grand grape grass gray great green grocery ground group grow guard guess guest guide
guitar hair half hall hammer hand happy harbor hard harvest hat hawk hay head hear heart heavy hedge hello help hen here
hero hidden high hill hold hole holiday home honest honey hood hook hope horn horse hotel hour house hug huge human hunger
hungry hurry ice idea inch ink insect iron island ivory jacket jam jar jelly jewel job join joke journey joy judge juice
jump june jungle just kettle key kick kind king kitchen kite kitten knee knife knight knock know ladder lady lake lamb lamp
land lantern large last late laugh law lazy leaf learn leather left leg lemon lesson letter level library light lily limb
line lion lip list listen little lizard local lock log long look lose loud love low lucky lunch machine magic mail make man
mango map maple marble march market mask match meadow meal measure meat medal meet melon melt memory metal middle milk mill
mind minute mirror mist mix model moment money monkey month moon morning moss mother motor mountain mouse mouth move mud
muffin museum music nail name nap narrow nature near neck needle neighbor nephew nest net never new nice night nine noise
noon north nose note novel number nurse nut oak oar oasis ocean offer office often oil old olive onion open orange orchard
order otter oven over owl owner oxygen page paint pair palace palm pan panda paper parade parent park parrot part party
path patient pea peace peach peacock pear pearl pebble pen pencil penguin people pepper phone photo piano picnic picture pie
piece pig pigeon pillow pilot pine pink pipe pirate place plain plan planet plant plate play please plum pocket poem point
polite pond pony pool porch port potato powder power present press pretty price prince prize proud pull pumpkin puppet puppy
purple push puzzle queen question quick quiet quilt rabbit race radio rain rainbow ranch reach read ready real red reply
rest ribbon rice rich ride right ring ripe rise river road roast robin robot rock rocket roll roof room root rope rose
round row royal rule run sad saddle safe sail sailor salad salmon salt same sand sandwich sauce save scarf school science
scissors sea seal search season seat second secret seed seek sell send seven shade shadow shape share shark sharp sheep
shelf shell shine ship shirt shoe shop shore short shoulder shout show shy side sign silent silk silver simple sing sister
six skate skill skin sky sled sleep slide slipper slow small smart smell smile smoke smooth snack snail snake snow soap
sock soft soldier solid some song soon sound soup south space spark sparrow speak spell spider spin spirit spoon sport
spot spring square squirrel stable stage stair stamp star start station stay steam steel stem step stick still stone stop
store storm story stove straw strawberry stream street string strong student study sugar summer sun sunny supper sure swan
sweet swift swim swing sword table tail talk tall tame tap taste taxi tea teach teacher team tear tell temple ten tender
tent test thank thick thin thing think thirsty three throne thumb ticket tide tiger time tin tiny tired title today toe
together tomato tomorrow tongue tool tooth top torch touch towel tower town toy track trade trail train travel treasure tree
trick trip truck true trumpet trunk trust truth try tulip tunnel turkey turn turtle twelve twig twin two umbrella uncle
under uniform unit useful usual valley van vase vast velvet very village vine violet violin visit voice volcano vote voyage
wagon wait walk wall walnut want war warm wash watch water wave wax way weak wear weather week well west whale wheat wheel
where whisper whistle white wide wild win wind window wing winter wise wish wizard wolf woman wonder wood wool word work
world worm worth write wrong yard yarn year yellow yes young zebra zero zoo
""".split()

ANIMALS = """fox bear cat dog lion tiger wolf rabbit mouse owl frog duck horse pig cow sheep goat hen goose turtle snail
whale dolphin shark crab otter penguin panda camel zebra giraffe monkey elephant parrot robin eagle hawk deer squirrel pony
donkey lizard snake spider bee ant butterfly dragon robot""".split()

PEOPLE = """king queen prince farmer sailor pirate wizard knight teacher doctor baker nurse captain giant ghost clown
gardener student girl boy""".split()

ADJECTIVES = """small big old young brave clever happy hungry kind lazy little lonely lucky quick quiet shy silly tired tiny
gentle wise curious proud funny""".split()

COLORS = "red blue green yellow black white brown pink purple gray orange golden silver".split()

# singular, plural
ITEMS = [p.split("/") for p in """apple/apples book/books lamp/lamps chair/chairs coin/coins pen/pens cup/cups ball/balls
table/tables hat/hats clock/clocks bag/bags pear/pears egg/eggs candle/candles stamp/stamps ticket/tickets plate/plates
pillow/pillows spoon/spoons bottle/bottles shirt/shirts rose/roses lemon/lemons cookie/cookies button/buttons kite/kites
mirror/mirrors carrot/carrots basket/baskets marble/marbles flower/flowers orange/oranges pencil/pencils shell/shells
card/cards""".split()]

NAMES = """Ada Adam Alan Alice Amy Ana Anna Ben Bella Bob Boris Carl Carla Cleo Clara Dan Dana David Diego Dora Ed Elena Eli
Ella Emma Eric Erik Eva Felix Finn Fred Frida George Gina Grace Greta Hana Hans Harry Helen Henry Hugo Ida Igor Ines Iris Ivan
Jack Jane Jim John Jonas Julia Kai Karl Kate Kim Kira Lara Laura Lea Leo Lena Lily Lisa Lola Louis Lucas Lucy Luke Maja Marco
Maria Mark Marta Mary Max Maya Mia Mila Milo Mina Nadia Nina Noah Nora Olga Oliver Omar Oscar Otto Paul Pedro Peter Petra Pia
Ravi Rita Robert Rosa Ruth Sam Sara Sofia Simon Sven Tara Theo Tim Tina Tom Uma Vera Victor Wanda Will Yara Yuri Zoe""".split()

CITIES = """Accra Amsterdam Ankara Athens Austin Baku Bangkok Basel Beirut Bergen Berlin Bern Bogota Bonn Boston Brussels
Budapest Cairo Calgary Chicago Cologne Dakar Dallas Delhi Denver Dublin Dubai Florence Geneva Ghent Glasgow Granada Hamburg
Hanoi Havana Helsinki Houston Istanbul Jakarta Kiel Krakow Kyiv Kyoto Lagos Leeds Leipzig Lima Lisbon London Lyon Madrid
Malmo Manila Marseille Melbourne Miami Milan Montreal Moscow Munich Nairobi Naples Nice Osaka Oslo Oxford Paris Perth Porto
Prague Quito Riga Rome Salem Seoul Seville Sofia Sydney Tallinn Tampa Tokyo Toronto Trieste Tunis Turin Utrecht Valencia
Venice Vienna Vilnius Warsaw Zagreb Zurich""".split()

ONSETS = "b c d f g h j k l m n p r s t v w y z bl br ch cl cr dr fl fr gl gr kn pl pr qu sc sh sk sl sm sn sp st sw th tr wh".split() + [""] * 3
VOWELS = "a a e e i i o o u u ai ea ee ie oa oo ou y au oy".split()
CODAS = "b d g k l m n p r s t x ck ld ll lt mp nd ng nk nt rd rk rn rt sh ss st th".split() + [""] * 14
