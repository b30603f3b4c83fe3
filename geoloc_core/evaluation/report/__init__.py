"""The stage ``geoloc report``: everything that is known of all variants, in one page."""
