from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("replay", "0003_dataset_quality"),
    ]

    operations = [
        migrations.AddField(
            model_name="dataset",
            name="indexed_percent",
            field=models.PositiveSmallIntegerField(
                default=0, editable=False, help_text="How much of the index for seeking is made."
            ),
        ),
    ]
