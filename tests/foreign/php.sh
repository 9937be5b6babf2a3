# PHP with extensions loaded at startup.
# packages: php-cli php-sqlite3 php-mbstring php-xml
# needs: php
# needs-success: php -m | grep -q mbstring && php -m | grep -q pdo_sqlite && php -m | grep -q SimpleXML
# pinned: /mbstring\.so
# pinned: /pdo_sqlite\.so
# results: 8
# quick
php -m
php -r '
    echo "mb: ", mb_strtoupper("äöü"), " ", mb_strlen("äöü"), "\n";
    $db = new PDO("sqlite::memory:"); $db->exec("create table t (a)"); $db->exec("insert into t values (1), (2)");
    echo "pdo: ", $db->query("select sum(a) from t")->fetchColumn(), "\n";
    $xml = new SimpleXMLElement("<a><b>c</b></a>"); echo "xml: ", $xml->b, "\n";
    $document = new DOMDocument(); $document->loadXML("<a/>"); echo "dom: ", trim($document->saveXML()), "\n";
    echo "hash: ", hash("sha256", "sopin"), "\n";
    echo "json: ", json_encode(["a" => [1, 2.5, null]]), "\n";
    echo "preg: ", preg_replace("/(\w+) (\w+)/", "$2 $1", "hello world"), "\n";
    try { intdiv(1, 0); } catch (DivisionByZeroError $e) { echo "caught: ", get_class($e), "\n"; }
'
